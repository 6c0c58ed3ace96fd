package reliability

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A host is the server's process, as the test sees it.
type host struct {
	cmd   *exec.Cmd
	calls *rpc.Client
	roots *x509.CertPool
	last  atomic.Uint64 // the number of the scenario that was begun last
}

// startHost starts one, which ends with the test.
func startHost(t testing.TB) *host {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"=server", countsToo+"="+strconv.FormatBool(*counts))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	testkit.OK(t, err)
	out, err := cmd.StdoutPipe()
	testkit.OK(t, err)
	testkit.OK(t, cmd.Start())
	h := &host{cmd: cmd, calls: rpc.NewClient(pipes{out, in}), roots: x509.NewCertPool()}
	t.Cleanup(func() {
		_ = h.calls.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server's process: %v", err)
		}
	})
	var der []byte
	testkit.OK(t, h.calls.Call("Host.Certificate", 0, &der))
	cert, err := x509.ParseCertificate(der)
	testkit.OK(t, err)
	h.roots.AddCert(cert)
	return h
}

// An outcome is what came of a scenario.
type outcome struct {
	struck   bool
	whole    int // streams that ended in order
	broken   int
	refused  int // streams and calls of which no handler has heard
	wrong    []string
	down, up int64    // bytes, until the streams were over
	ends     []string // how the client's connections, streams and calls have ended, where that was no success
	log      string   // the server's
	took     time.Duration
}

// A running scenario, on the client's side.
type running struct {
	sc     *scenario
	caps   frame.Caps
	client *kernel.Client
	told   teller
	says   func(what string, key uint64) // nil: nobody listens
	waits  bool                          // opens wait until there is a connection

	mu       sync.Mutex
	accounts []account
	wrongs   []string
}

func (r *running) wrong(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrongs = append(r.wrongs, fmt.Sprintf(format, args...))
}

func (r *running) add(a account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounts = append(r.accounts, a)
}

// run runs a scenario against the server's process, and returns what came of it.
func (h *host) run(t testing.TB, sc *scenario) (o outcome) {
	start := time.Now()
	var where Where
	begin := Begin{h.last.Add(1), sc.seed}
	if err := h.calls.Call("Host.Begin", begin, &where); err != nil {
		t.Fatalf("the server does not begin: %v", err)
	}
	path := newRelay(t, where.Addr, sc.fault)
	defer path.close()
	r := &running{sc: sc, caps: sc.wire.proto().Caps()}
	client, err := kernel.NewClient(path.addr(), r.options(&tls.Config{RootCAs: h.roots}))
	if err != nil {
		t.Fatal(err)
	}
	r.client = client
	r.play(path)
	o.took = time.Since(start)
	o.down, o.up = path.bytes()
	path.repair()
	r.afterwards()
	_ = client.Close()
	if n := len(client.Conns()); n > 0 {
		r.wrong("left at the client: %d connections", n)
	}
	var res Result
	if err := h.calls.Call("Host.End", begin, &res); err != nil {
		t.Fatalf("the server does not end: %v", err)
	}
	o.struck = path.struck.Load()
	o.ends, o.log = r.told.ends, res.Log
	r.judge(&o, &res)
	return o
}

func (r *running) options(secure *tls.Config) *kernel.ClientOptions {
	o := &kernel.ClientOptions{
		Protocols: []frame.Protocol{r.sc.wire.proto()}, Logger: slog.New(slog.DiscardHandler), Observer: &r.told, Limits: r.sc.limits(), ConnType: r.sc.connType,
		Backoff: kernel.Backoff{First: time.Millisecond, Most: 10 * time.Millisecond},
	}
	o.Stream.Compression = r.sc.packed
	if r.sc.tls {
		o.TLS = secure
	}
	if !r.sc.loops || r.sc.tiny {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := r.sc.dialer().DialContext(ctx, network, addr)
			if err != nil || r.sc.loops {
				return c, err
			}
			return testkit.PlainConn{Conn: c}, nil
		}
	}
	return o
}

// play has all streams and calls of the scenario be. Where bytes vanish they end some time later,
// for not every wire notices by itself.
func (r *running) play(path *relay) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*bound)
	defer cancel()
	if r.sc.fault.kind == blackhole {
		late := context.AfterFunc(path.strikes, func() {
			time.Sleep(1500 * time.Millisecond)
			cancel()
		})
		defer late()
	}
	var all sync.WaitGroup
	for i := range r.sc.streams {
		all.Go(func() {
			time.Sleep(r.sc.streams[i].begin)
			r.stream(ctx, key(r.sc.seed, i))
		})
	}
	all.Go(func() {
		for i := range r.sc.calls {
			r.call(ctx, key(r.sc.seed, firstCall+i))
		}
	})
	all.Wait()
}

// afterwards opens a stream on the whole path, with the same client. It may find a connection
// that has not noticed yet.
func (r *running) afterwards() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*bound)
	defer cancel()
	for n := again; ctx.Err() == nil; n-- {
		if a := r.stream(ctx, key(r.sc.seed, n)); a.Clean || a.Acked {
			return
		} else if n == again-30 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.wrong("lost: no stream works when the path is whole again")
}

// stream is the client's side of a stream.
func (r *running) stream(ctx context.Context, k uint64) account {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &side{sc: r.sc, plan: r.sc.streamOf(k), caps: &r.caps, opener: true, context: ctx, says: r.says, account: account{Key: k}}
	s, called, err := r.open(ctx, k, d.plan)
	if err == nil {
		d.s = s
		sendErr, receiveErr := d.talk()
		err = errors.Join(sendErr, receiveErr)
		if err == nil {
			err = d.end(ctx)
		}
		d.over(err != nil)
		if serr := s.Err(); serr != nil { // it says more than a way to send
			err = serr
		}
	}
	d.note(err)
	if cerr := <-called; cerr != nil && !d.Clean { // nobody has heard of the stream, if nobody has of the call
		d.note(cerr)
	}
	r.add(d.account)
	return d.account
}

// end ends a stream in order whose halves are through.
func (d *side) end(ctx context.Context) error {
	if d.caps.HalfClose && d.endsFirst() {
		return nil
	}
	d.ending()
	if d.endsFirst() {
		return d.s.Close(ctx)
	}
	if err := d.s.CloseSend(); !errors.Is(err, kernel.ErrNotSupported) {
		return nil // the server has ended both halves
	}
	return d.s.Close(ctx)
}

// open opens a stream whose first request says its key. Where streams are opened without a word,
// a call says the key of the stream that it names, and called is how that has ended.
func (r *running) open(ctx context.Context, k uint64, plan *stream) (s *kernel.Stream, called <-chan error, err error) {
	req := binary.LittleEndian.AppendUint64(nil, k)
	done := make(chan error, 1)
	o := kernel.StreamOptions{Window: plan.window}
	if !r.caps.StreamsByID {
		close(done)
		m := pool.Copy(req)
		s, err = r.client.Open(ctx, r.sc.wire.method(talks), &kernel.OpenOptions{Request: m, Stream: o, WaitForReady: r.waits})
		if err != nil {
			m.Release()
		}
		return s, done, err
	}
	s, err = r.client.Open(ctx, "", &kernel.OpenOptions{Stream: o})
	if err != nil {
		close(done)
		return nil, done, err
	}
	on, id := s.CallRef()
	m := pool.Copy(binary.LittleEndian.AppendUint64(req, id))
	go func() { // until the call is over
		reply, err := on.Call(ctx, r.sc.wire.method(talks), m, nil)
		if err != nil {
			m.Release()
			s.Abort(status.Cancelled, "nobody has taken the stream")
		}
		reply.Release()
		done <- err
	}()
	return s, done, nil
}

// call makes a call.
func (r *running) call(ctx context.Context, k uint64) {
	a := account{Key: k}
	req := pool.New(r.sc.callLen(k))
	binary.LittleEndian.PutUint64(req.Bytes(), k)
	reply, err := r.client.Call(ctx, r.sc.wire.method(calls), req, nil)
	if err != nil {
		req.Release()
		a.note(err)
	} else {
		if !r.sc.isMessage(k, 2, 0, reply.Bytes()) {
			a.Wrong = append(a.Wrong, fmt.Sprintf("corrupt: a reply of %d bytes", reply.Len()))
		}
		reply.Release()
		a.Answered = true
	}
	r.add(a)
}

// listen listens for a scenario.
func (sc *scenario) listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	if sc.tiny {
		lc.Control = tinyBuffers
	}
	return lc.Listen(context.Background(), "tcp", addr)
}

// dialer dials for a scenario.
func (sc *scenario) dialer() *net.Dialer {
	d := &net.Dialer{}
	if sc.tiny {
		d.Control = tinyBuffers
	}
	return d
}
