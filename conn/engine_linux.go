package conn

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/status"
)

// Engine is the event loops that the connections of a program share, and the watcher of
// their full sockets. It runs while it has users.
type Engine struct {
	mu      sync.Mutex
	users   int
	loops   *gnet.Client
	handler *handler
	watch   *watcher
}

// shared is the engine of all servers and clients of the process.
var shared = &Engine{}

// Acquire returns the engine, and starts it unless it runs. Every Acquire needs a
// Release.
func Acquire() (*Engine, error) {
	e := shared
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.users == 0 {
		if err := e.start(); err != nil {
			return nil, err
		}
	}
	e.users++
	return e, nil
}

func (e *Engine) start() error {
	w, err := newWatcher()
	if err != nil {
		return errtext.Errorf("sluice: event loops: %w", err)
	}
	h := &handler{}
	loops, err := gnet.NewClient(h,
		gnet.WithNumEventLoop(max(1, runtime.NumCPU()/2)),
		gnet.WithLogger(noLog{}),
		gnet.WithReadBufferCap(readBuffer))
	if err == nil {
		err = loops.Start()
	}
	if err != nil {
		w.close()
		return errtext.Errorf("sluice: event loops: %w", err)
	}
	e.loops, e.handler, e.watch = loops, h, w
	return nil
}

// readBuffer is what a loop reads at once, bytes.
const readBuffer = 256 << 10

// notSentLow bounds the unsent bytes in the socket, where the peer does not report what
// it has read: a small message waits behind all of them.
const notSentLow = 128 << 10

// Release stops the engine after its last user. It must not be called on a loop.
func (e *Engine) Release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	_ = e.loops.Stop()
	e.watch.close()
	e.loops, e.handler, e.watch = nil, nil, nil
}

// Serve runs a connection on nc, a TCP or Unix connection, with an event loop that reads.
// early is what was read of nc already. Serve calls made with the connection before
// anything happens on it. nc belongs to the connection from now on.
func (e *Engine) Serve(nc net.Conn, cfg Config, early []byte, made func(*Conn)) (*Conn, error) {
	fd, err := dup(nc)
	if err != nil {
		_ = nc.Close()
		return nil, &status.ConnError{Addr: cfg.Remote, Op: "attach", Err: err}
	}
	c := newConn(cfg)
	t := &loopConn{c: c, fd: fd, watch: e.watch, early: early}
	if !c.caps.ReadReports { // best effort: without it small messages only wait longer
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLow)
	}
	c.tr = t
	made(c)
	if _, err := e.loops.EnrollContext(nc, t); err != nil {
		t.closeFD()
		return nil, &status.ConnError{Addr: cfg.Remote, Op: "attach", Err: err}
	}
	return c, nil
}

// Loops reports whether nc can be served by an event loop.
func Loops(nc net.Conn) bool {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

func dup(nc net.Conn) (fd int, err error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1, errors.ErrUnsupported
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := rc.Control(func(f uintptr) {
		fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(err, cerr)
}

// handler passes gnet's events to connections.
type handler struct {
	gnet.BuiltinEventEngine
	loops loops
}

// OnOpen runs on the loop before any traffic.
func (h *handler) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	t := gc.Context().(*loopConn)
	t.loop = h.loops.get(gc.EventLoop())
	t.loop.conns.Add(1)
	t.loop.wakeups.Add(1)
	t.c.loop.Store(int32(t.loop.number))
	t.mu.Lock()
	t.gc = gc
	t.mu.Unlock()
	t.c.start()
	t.c.cfg.Handler.Started(t.c)
	if len(t.early) > 0 && !t.input(t.early) {
		return nil, gnet.None
	}
	t.early = nil
	return nil, gnet.None
}

// loopSlice is how long one connection's input may take before the loop lets others run: what it
// has made ready waits on its processor, where all others are busy.
const loopSlice = 500 * time.Microsecond

// OnTraffic consumes all input: gnet would copy what is left.
func (*handler) OnTraffic(gc gnet.Conn) gnet.Action {
	p, err := gc.Next(-1)
	if err != nil {
		return gnet.Close
	}
	t := gc.Context().(*loopConn)
	t.loop.wakeups.Add(1)
	t.full = len(p) == readBuffer
	t.input(p)
	if time.Since(t.c.in.now) > loopSlice {
		runtime.Gosched()
	}
	return gnet.None
}

// OnClose runs after the peer's close or our own.
func (*handler) OnClose(gc gnet.Conn, err error) gnet.Action {
	t := gc.Context().(*loopConn)
	t.loop.conns.Add(-1)
	t.loop.wakeups.Add(1)
	if err == nil {
		err = net.ErrClosed
	}
	t.c.lost("read", err)
	return gnet.None
}

// loopConn is the transport of a connection on an event loop. It writes through
// a descriptor of its own, so that any goroutine may.
type loopConn struct {
	c     *Conn
	watch *watcher
	early []byte
	loop  *loop
	over  bool // Input has returned false; owned by the loop
	full  bool // the last read filled its buffer; owned by the loop

	mu sync.Mutex // held over the write: it does not wait
	fd int
	gc gnet.Conn // nil until the loop has it
}

// input passes bytes on. A panic in the program above ends this connection, but not the
// loop with all others.
func (t *loopConn) input(p []byte) (ok bool) {
	if t.over {
		return false
	}
	defer func() {
		if r := recover(); r != nil {
			t.c.panicked(r)
			ok = false
		}
		t.over = !ok
	}()
	return t.c.Input(p)
}

const (
	// maxIovs keeps a gathered write below the system's limit of 1,024.
	maxIovs = 512

	// maxWrite is the most that one system call gathers, bytes: what one packet carries through
	// the loopback, or to a card that cuts segments itself. Payloads by reference are seldom in
	// the processor's cache, so a longer call copies for so long that the socket stays locked
	// while acknowledgements come in, and that the scheduler takes its processor away. Messages
	// of 1 MiB cost the sender 1.4 times the CPU with calls of 256 KiB. What was just encoded,
	// and is one piece, costs less in one long call.
	maxWrite = 60 << 10
)

func (t *loopConn) write(v [][]byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return 0, net.ErrClosed
	}
	for {
		n, err := writev(t.fd, v)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errAgain
		default:
			return 0, err
		}
	}
}

func (t *loopConn) await() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd >= 0 {
		t.watch.add(t.fd, t)
	}
}

// writev writes the first bytes of v, as many as one system call should. It returns how many they
// were.
func writev(fd int, v [][]byte) (int, error) {
	if len(v) == 1 {
		return unix.Write(fd, v[0])
	}
	pieces, room := 0, maxWrite
	for pieces < min(len(v), maxIovs) && room > 0 {
		room -= len(v[pieces])
		pieces++
	}
	v = v[:pieces]
	if room < 0 {
		last := &v[pieces-1]
		whole := *last
		*last = whole[:len(whole)+room]
		defer func() { *last = whole }()
	}
	return unix.Writev(fd, v)
}

// more looks into the socket.
func (t *loopConn) more() bool {
	if !t.full {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := unix.IoctlGetInt(t.fd, unix.TIOCINQ)
	return err == nil && n > 0
}

func (t *loopConn) inPlace() bool { return true }

func (t *loopConn) spawn() { go t.c.flusher() }

// writable is called by the watcher.
func (t *loopConn) writable() { go t.c.flush() }

func (t *loopConn) closeWrite() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fd >= 0 && unix.Shutdown(t.fd, unix.SHUT_WR) == nil
}

func (t *loopConn) sever() {}

func (t *loopConn) close() {
	if !t.closeFD() {
		return
	}
	t.mu.Lock()
	gc := t.gc
	t.mu.Unlock()
	if gc != nil { // else the loop will find the socket shut down
		_ = gc.Close()
	}
}

// closeFD shuts the connection down and closes our descriptor, which would keep
// it open for the peer. It returns false if that was done before.
func (t *loopConn) closeFD() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return false
	}
	t.watch.remove(t.fd)
	_ = unix.Shutdown(t.fd, unix.SHUT_RDWR)
	_ = unix.Close(t.fd)
	t.fd = -1
	return true
}
