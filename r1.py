import signal, socket, sys, time, os, faulthandler
import cmultiprocessing as mp
from cmultiprocessing.connection import Connection
faulthandler.dump_traceback_later(8, exit=True)
which = sys.argv[1]
if which == 'recv':
    a, b = mp.Pipe()
    got = []
    def h(*_):
        b.send('first'); b.send('second')
        got.append(a.recv())
    signal.signal(signal.SIGALRM, h); signal.setitimer(signal.ITIMER_REAL, .2)
    print(a.recv(), got)
elif which == 'send':
    a, b = mp.Pipe(False)
    n = [0]
    def h(*_):
        n[0] += 1
        try:
            b.send('handler'); n.append('ok')
        except Exception as e: n.append(repr(e))
        import threading
        threading.Thread(target=lambda: [print(len(a.recv_bytes())), print(a.recv() if 'ok' in n else '')], daemon=True).start()
    signal.signal(signal.SIGALRM, h); signal.setitimer(signal.ITIMER_REAL, .2)
    b.send_bytes(b'x'*200000)
    time.sleep(.2)
    print(n)
elif which == 'poll':
    s, t = socket.socketpair()
    c = Connection(s.detach())
    t.send(b'\0\0')
    try: c.recv(timeout=.1)
    except mp.TimeoutError as e: print('timeout', e)
    t.close()
    print('poll', c.poll(1))
    try: c.recv()
    except Exception as e: print(repr(e))
elif which == 'poll2':
    s, t = socket.socketpair()
    c = Connection(s.detach())
    t.send(b'\0\1\0\0' + b'x'*100)
    try: c.recv(timeout=.1)
    except mp.TimeoutError as e: print('timeout', e)
    print('poll', c.poll(.1), '(nothing more there)')
elif which == 'scalar':
    s, t = socket.socketpair()
    c = Connection(s.detach())
    import struct
    def put(p): t.send(struct.pack('!i', len(p)) + p)
    for p in (b'\x80\x04\x8c\x02\xff\xff.', b'\x80\x04(K\x01tK\x02t.', b'\x80\x04K\x01K\x02(\x86.', b'\x80\x04(.', b'\x80\x04(K\x01.', b'\x80\x04', b'', b'\x80\x04N'):
        put(p)
        try: print(p, c.recv())
        except BaseException as e: print(p, repr(e), repr(e.__context__))
        import pickle
        try: print('   ', pickle.loads(p))
        except BaseException as e: print('   ', repr(e))
