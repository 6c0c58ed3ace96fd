package reliability

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

func (d *doomed) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	testkit.OK(t, d.cmd.Process.Signal(s))
}

// A server stands still for a time that is shorter than the keepalive, as its machine may: nothing
// is lost.
func TestAStoppedServerLosesNothing(t *testing.T) {
	ofSystem(t)
	server := startDoomed(t, "victim server")
	at := server.begun(t)
	var last atomic.Uint64
	for n := range 2 * len(wires) {
		l, err := newLoad(n, at[1+n/len(wires)%2], &last, nil)
		testkit.OK(t, err)
		l.start()
		<-l.enough
		server.signal(t, syscall.SIGSTOP)
		time.Sleep(300 * time.Millisecond)
		server.signal(t, syscall.SIGCONT)
		l.goesOn(t)
		l.stop()
		l.close(t)
		l.allWhole(t)
		for j := range l.accounts {
			survives(t, l, &l.accounts[j], server)
		}
	}
}

// The same with the client.
func TestAStoppedClientLosesNothing(t *testing.T) {
	ofSystem(t)
	p, err := newPair("", "", nil)
	testkit.OK(t, err)
	for n := range 2 * len(wires) {
		client := startDoomed(t, "victim client", envAddr+"="+p.of(n).addr, fmt.Sprintf("%s=%d %d", envLoad, n, uint64(n)<<32))
		client.begun(t)
		client.signal(t, syscall.SIGSTOP)
		time.Sleep(300 * time.Millisecond)
		client.signal(t, syscall.SIGCONT)
		time.Sleep(20 * time.Millisecond)
		testkit.OK(t, client.in.Close())
		if has := strings.Join(client.begun(t), " "); !strings.HasSuffix(has, " 0 broken, 0 refused []") {
			t.Errorf("the client %s", has)
		}
		p.rest(t)
		all := map[uint64]*account{}
		p.take(all)
		for _, a := range all {
			if a.Err != "" || len(a.Wrong) > 0 {
				t.Errorf("%s: %+v", wires[n%len(wires)].name, *a)
			}
		}
	}
	p.close(t)
}

// A server stands still for good. Where the wire has a keepalive every stream is told, and when the
// server goes on so does the client.
func TestAStoppedServerIsNoticed(t *testing.T) {
	ofSystem(t)
	server := startDoomed(t, "victim server")
	at := server.begun(t)
	var last atomic.Uint64
	for n := range 2 * len(wires) {
		sc := loadScenario()
		sc.wire, sc.tls, sc.fault.kind = &wires[n%len(wires)], n >= len(wires), blackhole
		l, err := loadOf(sc, at[1+n/len(wires)], &last, nil, func(o *kernel.ClientOptions) { o.Limits.Handshake = time.Second })
		testkit.OK(t, err)
		if !l.caps.Ping {
			l.close(t)
			continue
		}
		l.start()
		<-l.enough
		server.signal(t, syscall.SIGSTOP)
		l.stop()
		server.signal(t, syscall.SIGCONT)
		if !l.works() {
			t.Errorf("%s: no stream works when the server goes on", l.sc.row())
		}
		l.close(t)
		for j := range l.accounts {
			survives(t, l, &l.accounts[j], server)
		}
	}
}

// A server has no descriptors left, again and again: the connections that it has go on, new ones
// wait or are told, and they work when there are some again.
func TestDescriptorsRunOut(t *testing.T) {
	ofSystem(t)
	server := startDoomed(t, "victim server", envFiles+"=100")
	at := server.begun(t)
	var last atomic.Uint64
	for n := range 2 * len(wires) {
		addr := at[1+n/len(wires)]
		old, err := newLoad(n, addr, &last, nil)
		testkit.OK(t, err)
		if old.caps.StreamsByID { // each of its streams is a new connection
			old.close(t)
			continue
		}
		if !old.works() {
			t.Fatalf("%s: no stream works: %+v", old.sc.row(), old.accounts[len(old.accounts)-1])
		}
		whole := len(old.accounts)
		if n == 0 {
			_, err := server.in.Write([]byte{1})
			testkit.OK(t, err)
		}
		old.start()
		sc := *old.sc
		young, err := loadOf(&sc, addr, &last, nil, func(o *kernel.ClientOptions) { o.ConnType = kernel.ConnShort })
		testkit.OK(t, err)
		young.start()
		old.goesOn(t)
		young.goesOn(t)
		young.stop()
		old.stop()
		young.close(t)
		old.close(t)
		old.accounts = old.accounts[whole-1:]
		old.allWhole(t)
		for _, l := range []*load{old, young} {
			for j := range l.accounts {
				survives(t, l, &l.accounts[j], server)
			}
			if *tell {
				t.Log(l)
			}
		}
	}
}

// A herd of clients loses its server: each is told, each keeps to the pauses of its backoff, and
// each gets to the next server.
func TestAHerdComesBack(t *testing.T) {
	ofSystem(t)
	const herd = 500
	backoff := kernel.Backoff{First: 20 * time.Millisecond, Most: time.Second, Factor: 1.6, Jitter: 0.2}
	server := startDoomed(t, "victim server")
	at := server.begun(t)
	var last atomic.Uint64
	loads, dials := make([]*load, herd), make([]pauses, herd)
	for i := range loads {
		l, err := loadOf(loadScenario(), at[1], &last, nil, func(o *kernel.ClientOptions) {
			o.Backoff = backoff
			o.Dial = dials[i].dial
		})
		testkit.OK(t, err)
		l.waits, l.crew = true, 1
		loads[i] = l
	}
	each := func(f func(l *load)) {
		var all sync.WaitGroup
		for _, l := range loads {
			all.Go(func() { f(l) })
		}
		all.Wait()
	}
	each(func(l *load) {
		if !l.works() {
			t.Error("a client does not get in")
		}
		l.start()
	})
	server.kill()
	var back sync.WaitGroup
	back.Go(func() {
		each(func(l *load) {
			l.stop()
			if !l.works() {
				t.Error("a client does not come back")
			}
			l.close(t)
		})
	})
	time.Sleep(300 * time.Millisecond) // so that they try in vain
	next := startDoomed(t, "victim server", envAddr+"="+at[1], envTLS+"="+at[2])
	next.begun(t)
	back.Wait()
	tried := 0
	for i, l := range loads {
		for j := range l.accounts {
			survives(t, l, &l.accounts[j], server, next)
		}
		dials[i].check(t, backoff)
		tried += len(dials[i].failed)
	}
	if tried == 0 {
		t.Error("nobody has tried in vain: this shows nothing")
	}
	t.Logf("%d clients have tried %d times in vain", herd, tried)
}

// pauses are when a client has dialled in vain, one time after the other.
type pauses struct {
	mu     sync.Mutex
	failed [][2]time.Time // begin and end, since the last success
}

func (p *pauses) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	begin := time.Now()
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed = append(p.failed, [2]time.Time{begin, time.Now()})
	}
	return c, err
}

// check checks that no pause was shorter than the backoff says.
func (p *pauses) check(t *testing.T, b kernel.Backoff) {
	t.Helper()
	least := float64(b.First) * (1 - b.Jitter)
	for i := 1; i < len(p.failed); i++ {
		if pause := p.failed[i][0].Sub(p.failed[i-1][1]); float64(pause) < least {
			t.Errorf("attempt %d came %v after the last one, %v at least", i, pause, time.Duration(least))
		}
		least = min(least*b.Factor, float64(b.Most)*(1-b.Jitter))
	}
}
