# SPDX-License-Identifier: PSF-2.0
"""Build of the C extension; everything that is plain data stands in pyproject.toml.

Environment, for developers and CI (a plain install needs none of them):

    CMP_WERROR=1                    compiler warnings are errors
    CMP_DEBUG=1                     assertions on, optimised for the debugger
    CMP_SANITIZE=address,undefined  build with these sanitizers (or: thread)
    CMP_BUILD_TESTING=1             also build cmultiprocessing._testcmultiprocessing
    CMP_JOBS=2                      compiler processes at a time
"""
from __future__ import annotations

import os
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("Modules/_cmultiprocessing")
TESTING = Path("Modules/_testcmultiprocessing")
# Addresses of functions are looked up once, when the extension is loaded: looked up at their first call, every forked
# child would do that again for what its parent never called.
BIND_NOW = ["-Wl,-z,now"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]


def enabled(name: str) -> bool:
    """Whether a switch of the environment is on; anything but unset, empty, 0 and 1 is refused."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"{name}={value!r}: expected 1 or 0")
    return value == "1"


def files(folder: Path, suffix: str) -> list[str]:
    """Files below a folder, in an order that does not depend on the file system."""
    return sorted(str(path) for path in folder.rglob(f"*{suffix}"))


def sanitizers() -> list[str]:
    """The names in CMP_SANITIZE, checked."""
    names = [name for name in os.environ.get("CMP_SANITIZE", "").split(",") if name]
    unknown = set(names) - {"address", "undefined", "thread"}
    if unknown:
        raise SystemExit(f"CMP_SANITIZE: unknown sanitizer {', '.join(sorted(unknown))}")
    if "thread" in names and "address" in names:
        raise SystemExit("CMP_SANITIZE: thread and address exclude each other")
    return names


def compile_args() -> list[str]:
    """Compiler arguments of both extensions.

    Python's own headers are made system headers: their inline functions are not ours to keep free of warnings.
    """
    args = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", *WARNINGS]
    for folder in sorted({sysconfig.get_path("include"), sysconfig.get_path("platinclude")}):
        args += ["-isystem", folder]
    if enabled("CMP_WERROR"):
        args.append("-Werror")
    args += ["-UNDEBUG", "-Og", "-g"] if enabled("CMP_DEBUG") else ["-DNDEBUG"]
    if sanitizers():
        args += sanitizer_args() + ["-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-O1", "-g"]
    return args


def sanitizer_args() -> list[str]:
    """Arguments that compiler and linker share."""
    return [f"-fsanitize={','.join(sanitizers())}"] if sanitizers() else []


def extension(name: str, sources: list[str], include_dirs: list[Path], more_args: list[str]) -> Extension:
    """One extension of the package. Every header counts as a dependency of every source."""
    return Extension(
        f"cmultiprocessing.{name}",
        sources=sources,
        depends=[header for folder in (CORE, TESTING) for header in files(folder, ".h")],
        include_dirs=[str(folder) for folder in include_dirs],
        extra_compile_args=compile_args() + more_args,
        extra_link_args=[*BIND_NOW, *sanitizer_args()],
    )


def extensions() -> list[Extension]:
    """The extension, and on request the private one that tests the C layers from inside."""
    core = files(CORE, ".c")
    found = [extension("_cmultiprocessing", core, [CORE], [])]
    if enabled("CMP_BUILD_TESTING"):
        testing = files(TESTING, ".c")
        if (TESTING / "module.c").exists():
            below_python = [source for source in core if Path(source).parent != CORE / "py"]
            found.append(
                extension(
                    "_testcmultiprocessing", testing + below_python, [CORE, TESTING], ["-UNDEBUG", "-DMP_TESTING"]
                )
            )
        else:
            print(f"CMP_BUILD_TESTING: there is no {TESTING}/module.c, nothing to build", file=sys.stderr)
    return found


class BuildExtensions(build_ext):
    """build_ext that compiles in parallel, compiles only what is out of date, and notices changed arguments."""

    def run(self) -> None:
        """Build, or say why this system cannot."""
        if not sys.platform.startswith("linux"):
            raise SystemExit(
                f"cmultiprocessing: Linux only so far (this is {sys.platform}); "
                "use the standard library's multiprocessing here"
            )
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Build one extension in a folder of its own: both share sources, with different arguments."""
        common = self.build_temp
        self.build_temp = os.path.join(common, ext.name)
        ext.depends = [*map(str, ext.depends), self._arguments_stamp(ext)]
        plain_compile = self.compiler.compile
        self.compiler.compile = self._parallel(plain_compile)
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = plain_compile
            self.build_temp = common

    def _arguments_stamp(self, ext: Extension) -> str:
        """A file that is as old as the last change of the arguments, so that it can stand among the dependencies."""
        stamp = Path(self.build_temp) / "arguments.txt"
        text = "\n".join([*map(str, ext.sources), *ext.extra_compile_args, *ext.extra_link_args])
        if not stamp.exists() or stamp.read_text() != text:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(text)
        return str(stamp)

    def _parallel(self, plain_compile: Any) -> Any:
        """The compiler's compile(), one source at a time on several threads."""

        def compile_out_of_date(
            sources: list[str], *, output_dir: str, depends: list[str], **options: Any
        ) -> list[str]:
            newest = max((os.path.getmtime(path) for path in depends), default=0.0)

            def compile_one(source: str) -> list[str]:
                objects: list[str] = self.compiler.object_filenames([source], output_dir=output_dir)
                if all(is_current(target, max(newest, os.path.getmtime(source))) for target in objects):
                    return objects
                made: list[str] = plain_compile([source], output_dir=output_dir, depends=depends, **options)
                return made

            with ThreadPoolExecutor(int(os.environ.get("CMP_JOBS", "2"))) as pool:
                return [target for made in pool.map(compile_one, sources) for target in made]

        return compile_out_of_date


def is_current(target: str, changed: float) -> bool:
    """Whether a built file is newer than the last change of what it is made from."""
    return os.path.exists(target) and os.path.getmtime(target) > changed


setup(license="PSF-2.0", ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
