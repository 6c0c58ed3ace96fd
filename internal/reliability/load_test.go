package reliability

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

// A load opens one stream after another, and makes calls, on several goroutines.
type load struct {
	*running
	workers sync.WaitGroup
	last    *atomic.Uint64 // key
	over    atomic.Bool    // no further streams
	crew    int64          // how many goroutines it has
	whole   atomic.Int64   // streams that have ended in order
	enough  chan struct{}  // closed when there have been some
}

// insecure trusts any server: who is killed takes its certificate along.
var insecure = &tls.Config{InsecureSkipVerify: true}

// newLoad makes a load of one wire, with TLS or without. Keys follow last.
func newLoad(n int, addr string, last *atomic.Uint64, says func(string, uint64)) (*load, error) {
	sc := loadScenario()
	sc.wire, sc.tls = &wires[n%len(wires)], n/len(wires)%2 == 1
	return loadOf(sc, addr, last, says, nil)
}

// loadOf is newLoad with options that change may change.
func loadOf(sc *scenario, addr string, last *atomic.Uint64, says func(string, uint64), change func(*kernel.ClientOptions)) (*load, error) {
	r := &running{sc: sc, caps: sc.wire.proto().Caps(), says: says}
	o := r.options(insecure)
	if change != nil {
		change(o)
	}
	client, err := kernel.NewClient(addr, o)
	if err != nil {
		return nil, err
	}
	r.client = client
	return &load{running: r, crew: 8, last: last, enough: make(chan struct{})}, nil
}

func (l *load) start() {
	for range l.crew {
		l.workers.Go(func() { // until it is stopped
			for n := 0; !l.over.Load(); n++ {
				k := l.last.Add(1)
				if n%4 == 3 {
					l.call(context.Background(), k)
					continue
				}
				if a := l.stream(context.Background(), k); (a.Clean || a.Acked) && l.whole.Add(1) == l.crew {
					close(l.enough)
				}
			}
		})
	}
}

// stop ends the load, whose streams are let end.
func (l *load) stop() {
	l.over.Store(true)
	l.workers.Wait()
}

// works tells whether a stream of the load's client works, or does soon.
func (l *load) works() bool {
	return within(6*bound, func() bool {
		a := l.stream(context.Background(), l.last.Add(1))
		return a.Clean || a.Acked
	})
}

// close closes the client, and reports what is wrong on its side alone.
func (l *load) close(t testing.TB) {
	t.Helper()
	_ = l.client.Close()
	for _, w := range append(l.wrongs, l.told.wrong()...) {
		t.Errorf("%s: client: %s", l.sc.row(), w)
	}
}

// goesOn waits until every worker has had further streams.
func (l *load) goesOn(t testing.TB) {
	t.Helper()
	begin := l.whole.Load()
	if !eventually(func() bool { return l.whole.Load() >= begin+2*l.crew }) {
		t.Errorf("%s: the streams do not go on", l.sc.row())
	}
}

// allWhole checks that nothing was lost.
func (l *load) allWhole(t testing.TB) {
	t.Helper()
	for i := range l.accounts {
		if a := &l.accounts[i]; !a.Clean && !a.Acked && !a.Answered || a.Err != "" {
			t.Errorf("%s: lost: %+v", l.sc.row(), *a)
		}
	}
}

func (l *load) String() string {
	whole, broken, refused := 0, 0, 0
	for i := range l.accounts {
		switch a := &l.accounts[i]; {
		case a.Clean || a.Acked || a.Answered:
			whole++
		case a.Refused:
			refused++
		default:
			broken++
		}
	}
	return fmt.Sprintf("%s: %d streams and calls whole, %d broken, %d refused", l.sc.row(), whole, broken, refused)
}

// A pair is a server of all wires, without TLS and with.
type pair struct{ plain, secure *served }

// newPair starts one. Empty addresses are free ones.
func newPair(plain, secure string, says func(string, uint64)) (*pair, error) {
	cert, _ := testkit.Certificate("localhost", nil, nil)
	p := &pair{newServed(loadScenario()), newServed(loadScenario())}
	p.secure.sc.tls = true
	for s, addr := range map[*served]string{p.plain: plain, p.secure: secure} {
		s.says = says
		ln, err := listenAgain(addr)
		if err != nil {
			return nil, err
		}
		s.addr = ln.Addr().String()
		if err := s.start(ln, cert); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// listenAgain listens where somebody else may have listened a moment ago.
func listenAgain(addr string) (ln net.Listener, err error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	eventually(func() bool {
		ln, err = net.Listen("tcp", addr)
		return err == nil
	})
	return ln, err
}

// of is the one that load n talks with.
func (p *pair) of(n int) *served {
	if n/len(wires)%2 == 1 {
		return p.secure
	}
	return p.plain
}

// rest waits until nothing is left of any client.
func (p *pair) rest(t testing.TB) {
	t.Helper()
	for _, s := range []*served{p.plain, p.secure} {
		if left := s.rest(); left != "" {
			t.Errorf("left at the server: %s", left)
		}
	}
}

// take returns what the servers know of streams and calls, and forgets it.
func (p *pair) take(into map[uint64]*account) {
	for _, s := range []*served{p.plain, p.secure} {
		s.mu.Lock()
		for k, a := range s.accounts {
			if b := into[k]; b != nil {
				a.Begun += b.Begun
			}
			into[k] = a
		}
		s.accounts = map[uint64]*account{}
		s.mu.Unlock()
	}
}

// close closes the servers.
func (p *pair) close(t testing.TB) {
	t.Helper()
	for _, s := range []*served{p.plain, p.secure} {
		r := s.end()
		for _, w := range r.Wrong {
			t.Errorf("server: %s", w)
		}
	}
}
