package reliability

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A Host is the server's process, by its input and output. It has a server for each scenario that
// is under way.
type Host struct {
	cert   tls.Certificate
	mu     sync.Mutex
	of     map[uint64]*served
	before resources
}

// serve is the server's process. It ends with its input.
func serve() {
	h := &Host{of: map[uint64]*served{}}
	h.cert, _ = testkit.Certificate("localhost", nil, nil)
	s := rpc.NewServer()
	if err := s.RegisterName("Host", h); err != nil {
		panic(err)
	}
	s.ServeConn(pipes{os.Stdin, os.Stdout})
}

// pipes are a connection.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// A Begin asks for a server.
type Begin struct{ ID, Seed uint64 }

// Where it is.
type Where struct{ Addr string }

// A Result is what a server knows when its scenario is over.
type Result struct {
	Accounts []account
	Wrong    []string
	Log      string
}

// Certificate is who all servers are.
func (h *Host) Certificate(_ int, der *[]byte) error {
	*der = h.cert.Certificate[0]
	return nil
}

// Begin starts the server of a scenario.
func (h *Host) Begin(b Begin, w *Where) error {
	s := newServed(newScenario(b.Seed))
	ln, err := s.sc.listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	w.Addr = ln.Addr().String()
	h.mu.Lock()
	h.of[b.ID] = s
	h.mu.Unlock()
	return s.start(ln, h.cert)
}

// End waits until nothing of the scenario is left, and returns what is known of it.
func (h *Host) End(b Begin, r *Result) error {
	h.mu.Lock()
	s := h.of[b.ID]
	delete(h.of, b.ID)
	h.mu.Unlock()
	*r = s.end()
	return nil
}

// Rest returns what is left when no scenario is under way. The first call says what may be.
func (h *Host) Rest(_ int, left *string) error {
	*left = idle(&h.before)
	return nil
}

// served is the server of a scenario.
type served struct {
	sc      *scenario
	says    func(what string, key uint64) // nil: nobody listens
	srv     *kernel.Server
	served  chan error
	addr    string
	journal testkit.Journal
	busy    atomic.Int64 // handlers, and who waits for the ends of their streams
	told    teller

	mu       sync.Mutex
	accounts map[uint64]*account
	wrongs   []string
}

func newServed(sc *scenario) *served {
	return &served{sc: sc, accounts: map[uint64]*account{}}
}

func (s *served) start(ln net.Listener, cert tls.Certificate) error {
	o := kernel.ServerOptions{Protocols: []frame.Protocol{s.sc.wire.proto()}, Logger: s.journal.Logger(), Observer: &s.told, Limits: s.sc.limits()}
	o.Stream.Compression = s.sc.packed
	if s.sc.tls {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if s.sc.every {
		o.Protocols = nil
		for i := range wires {
			o.Protocols = append(o.Protocols, wires[i].proto())
		}
	}
	if !s.sc.loops {
		ln = testkit.PlainListener{Listener: ln}
	}
	srv, err := kernel.NewServer(&o)
	if err != nil {
		return err
	}
	s.srv, s.served = srv, make(chan error, 1)
	s.handle(srv.Handlers, s.sc.wire)
	if s.sc.every {
		s.handle(srv.Handlers, &wire{proto: func() frame.Protocol { return &seastar.Protocol{} }})
	}
	go func() { s.served <- srv.Serve(context.Background(), ln) }()
	return nil
}

func (s *served) handle(hs *kernel.Handlers, w *wire) {
	hs.Handle(w.method(talks), s.serveTalk)
	hs.Handle(w.method(calls), s.serveCall)
}

func (s *served) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrongs = append(s.wrongs, fmt.Sprintf(format, args...))
}

// begun notes that a handler has begun for a key.
func (s *served) begun(k uint64) *account {
	if s.says != nil {
		s.says(hasBegun, k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[k]
	if a == nil {
		a = &account{Key: k}
		s.accounts[k] = a
	}
	a.Begun++
	return a
}

// serveTalk serves a stream: the handler's own one, or where a call names one, that.
func (s *served) serveTalk(ctx context.Context, st *kernel.Stream) error {
	s.busy.Add(1)
	defer s.busy.Add(-1)
	m, err := st.Request(ctx)
	if err != nil {
		return err
	}
	defer m.Release()
	k := binary.LittleEndian.Uint64(m.Bytes())
	a := s.begun(k)
	caps := st.Conn().Caps()
	if !caps.StreamsByID {
		return s.talk(a, st)
	}
	child, err := st.Conn().TakeStream(ctx, binary.LittleEndian.Uint64(m.Bytes()[8:]))
	if err != nil {
		return err
	}
	s.busy.Add(1)
	go func() {
		defer s.busy.Add(-1)
		child.Serve(func(context.Context) { child.Finish(s.talk(a, child)) })
	}()
	reply := pool.New(0)
	if err = st.Send(ctx, reply); err != nil {
		reply.Release()
	}
	return err
}

// talk is the server's side of a stream. What it returns ends the stream.
func (s *served) talk(a *account, st *kernel.Stream) error {
	caps := st.Conn().Caps()
	d := &side{sc: s.sc, plan: s.sc.streamOf(a.Key), caps: &caps, s: st, says: s.says, account: account{Key: a.Key}}
	sendErr, receiveErr := d.talk()
	err := errors.Join(sendErr, receiveErr)
	if err == nil {
		d.ending()
	}
	d.note(err)
	s.busy.Add(1)
	go func() { // until the stream is over, which its handler's return makes it be
		defer s.busy.Add(-1)
		d.over(err != nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		d.Begun = a.Begun
		*a = d.account
	}()
	return err
}

// serveCall answers a call.
func (s *served) serveCall(ctx context.Context, st *kernel.Stream) error {
	s.busy.Add(1)
	defer s.busy.Add(-1)
	m, err := st.Request(ctx)
	if err != nil {
		return err
	}
	k := binary.LittleEndian.Uint64(m.Bytes())
	if n := s.sc.callLen(k); m.Len() != n {
		s.wrong("corrupt: a request of %d bytes, of %d", m.Len(), n)
	}
	m.Release()
	s.begun(k)
	reply := s.sc.message(k, 2, 0)
	if err = st.Send(ctx, reply); err != nil {
		reply.Release()
	}
	return err
}

// callLen is the length of a call's request.
func (sc *scenario) callLen(k uint64) int { return 8 + int(k*2654435761>>7%uint64(sc.longest)) }

// rest waits until nothing is left of any client, and says what is. Where a stream is a connection,
// one that nobody has taken may stay for a minute after its parent.
func (s *served) rest() (left string) {
	limit := 2 * bound
	if s.sc.every || s.sc.wire.name == "seastar" {
		limit = 5 * bound
	}
	if within(limit, func() bool {
		st := s.srv.Stats()
		left = fmt.Sprintf("%d connections, %d streams, %d handlers", st.Conns, st.Streams, s.busy.Load())
		return st.Conns == 0 && st.Streams == 0 && s.busy.Load() == 0
	}) {
		return ""
	}
	return left
}

func (s *served) end() (r Result) {
	if left := s.rest(); left != "" {
		s.wrong("left at the server: %s", left)
	}
	_ = s.srv.Close()
	if err := <-s.served; !errors.Is(err, kernel.ErrServerClosed) {
		s.wrong("Serve has returned %v", err)
	}
	if st := s.srv.Stats(); st.Panics > 0 || st.Memory != 0 {
		s.wrong("%d panics, %d bytes are still counted", st.Panics, st.Memory)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		r.Accounts = append(r.Accounts, *a)
	}
	r.Wrong = append(s.wrongs, s.told.wrong()...)
	if log := s.journal.String(); len(log) < 5000 {
		r.Log = log
	}
	return r
}

// A teller checks that an Observer is told of each beginning and end once.
type teller struct {
	mu      sync.Mutex
	streams map[*kernel.Stream]int
	conns   map[*kernel.Conn]int
	bad     []string
	ends    []string // how connections have ended
}

func told[T comparable](t *teller, m *map[T]int, v T, n int, what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if *m == nil {
		*m = map[T]int{}
	}
	if got := (*m)[v]; got != n {
		t.bad = append(t.bad, fmt.Sprintf("told twice, or of an end before the beginning: %s, after %d", what, got))
	}
	(*m)[v]++
}

// ConnBegun implements kernel.Observer, as the others do.
func (t *teller) ConnBegun(c *kernel.Conn)     { told(t, &t.conns, c, 0, "a connection's beginning") }
func (t *teller) StreamBegun(s *kernel.Stream) { told(t, &t.streams, s, 0, "a stream's beginning") }
func (t *teller) StreamEnded(s *kernel.Stream, _ kernel.StreamInfo) {
	told(t, &t.streams, s, 1, "a stream's end")
}
func (t *teller) ConnEnded(c *kernel.Conn, _ kernel.ConnInfo) {
	told(t, &t.conns, c, 1, "a connection's end")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends = append(t.ends, fmt.Sprint(c.Err()))
}

// wrong is what was wrong when the server or client was closed.
func (t *teller) wrong() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	bad := t.bad
	for _, n := range t.streams {
		if n != 2 {
			bad = append(bad, "never told: a stream's end")
		}
	}
	for _, n := range t.conns {
		if n != 2 {
			bad = append(bad, "never told: a connection's end")
		}
	}
	return bad
}

// limits are both sides'. Where bytes vanish it is the keepalive that notices, if the wire has one.
func (sc *scenario) limits() (l kernel.Limits) {
	if sc.fault.kind == blackhole {
		l.KeepaliveInterval, l.KeepaliveTimeout = 200*time.Millisecond, 300*time.Millisecond
	}
	return l
}

// resources are what a process holds.
type resources struct {
	taken       bool
	descriptors int
	messages    int64
}

func (r *resources) String() string {
	return fmt.Sprintf("%d descriptors, %d messages", r.descriptors, r.messages)
}

func holds() (r resources) {
	fds, _ := os.ReadDir("/proc/self/fd")
	r = resources{taken: true, descriptors: len(fds)}
	if *counts || os.Getenv(countsToo) == "true" {
		r.messages = pool.Outstanding()
	}
	return r
}

// atRest waits until the process holds no more than before, and says what it still does.
func atRest(before *resources) string {
	if !before.taken {
		*before = holds()
	}
	var now resources
	if !eventually(func() bool {
		runtime.GC()
		now = holds()
		return now.descriptors <= before.descriptors && now.messages <= before.messages
	}) {
		return fmt.Sprintf("%v, before %v", &now, before)
	}
	return ""
}

// idle is atRest, where nothing but the test itself runs.
func idle(before *resources) string {
	if left := atRest(before); left != "" {
		return left
	}
	if err := goleak.Find(append(leak.Allowed(), own()...)...); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", " ")
	}
	return ""
}

// own are the goroutines of the test, or of the server's process, themselves.
func own() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("net/rpc.(*Client).input"), goleak.IgnoreAnyFunction("net/rpc.(*Server).ServeCodec"),
		goleak.IgnoreAnyFunction("testing.(*T).Run"), goleak.IgnoreAnyFunction("os/exec.(*Cmd).watchCtx"),
	}
}

// eventually waits until cond holds, and tells whether it does.
func eventually(cond func() bool) bool { return within(2*bound, cond) }

func within(limit time.Duration, cond func() bool) bool {
	for end := time.Now().Add(limit); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
