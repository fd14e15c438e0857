# SPDX-License-Identifier: PSF-2.0
"""One measurement in a fresh interpreter: ``python -m benchmarks._runner REQUEST``.

REQUEST is a JSON object: ``library``, ``case``, ``operations`` and, to find out how many operations
fill a given time, ``seconds``.  The answer is one line of JSON on standard output.

Nothing but `sys` is imported at the top, because spawned children import this module as their main
module, and what it costs would be counted as their start.
"""

import sys


def main() -> int:
    """Measure what the request names and print the answer."""
    import json
    import traceback

    from benchmarks import _catalogue, _harness

    request = json.loads(sys.argv[1])
    try:
        answer = _harness.answer(
            _catalogue.find(request["case"]),
            request["library"],
            request["operations"],
            request.get("seconds"),
        )
    except _harness.Unavailable as reason:
        answer = {"unavailable": str(reason)}
    except Exception as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
