package reliability

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
)

// Where a victim's environment says what it is to do.
const (
	envAddr  = "SLUICE_RELIABILITY_ADDR"  // to serve at, or to dial
	envTLS   = "SLUICE_RELIABILITY_TLS"   // to serve at, with TLS
	envLoad  = "SLUICE_RELIABILITY_LOAD"  // which wire a client is to load, and its first key
	envFiles = "SLUICE_RELIABILITY_FILES" // how many descriptors it may have, which it now and then has
)

// victim is a process that somebody kills or stops. It ends with its input, too.
func victim() {
	says := func(what string, key uint64) { fmt.Printf("%s %d\n", what, key) }
	switch os.Getenv(role) {
	case "victim server":
		p, err := newPair(os.Getenv(envAddr), os.Getenv(envTLS), says)
		if err != nil {
			panic(err)
		}
		fmt.Println("serves", p.plain.addr, p.secure.addr)
		if n, err := strconv.ParseUint(os.Getenv(envFiles), 10, 64); err == nil {
			_, _ = os.Stdin.Read(make([]byte, 1)) // when it is told to
			go storm(n)
		}
	case "victim client":
		var n int
		var first uint64
		if _, err := fmt.Sscan(os.Getenv(envLoad), &n, &first); err != nil {
			panic(err)
		}
		var last atomic.Uint64
		last.Store(first)
		l, err := newLoad(n, os.Getenv(envAddr), &last, says)
		if err != nil {
			panic(err)
		}
		l.start()
		<-l.enough
		fmt.Println("loads")
		_, _ = io.Copy(io.Discard, os.Stdin)
		l.stop()
		_ = l.client.Close()
		fmt.Println("has", l, append(l.wrongs, l.told.wrong()...))
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// storm has the process have n descriptors at most, and again and again takes all that are left.
func storm(n uint64) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
		panic(err)
	}
	for {
		var taken []*os.File
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				break
			}
			taken = append(taken, f)
		}
		time.Sleep(20 * time.Millisecond)
		for _, f := range taken {
			f.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A doomed process, as the test sees it. What it has said before it was killed it has said.
type doomed struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	ready chan []string // what it says when it has begun
	gone  chan struct{} // closed when it says no more

	mu   sync.Mutex
	said map[string]map[uint64]bool
}

func startDoomed(t testing.TB, who string, env ...string) *doomed {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), role+"="+who), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	testkit.OK(t, err)
	out, err := cmd.StdoutPipe()
	testkit.OK(t, err)
	testkit.OK(t, cmd.Start())
	d := &doomed{cmd: cmd, in: in, ready: make(chan []string, 1), gone: make(chan struct{}), said: map[string]map[uint64]bool{hasBegun: {}, hasEnded: {}}}
	go func() {
		defer close(d.gone)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.hear(strings.Fields(lines.Text()))
		}
	}()
	t.Cleanup(d.kill)
	return d
}

func (d *doomed) hear(words []string) {
	if len(words) != 2 {
		d.ready <- words
		return
	}
	k, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil {
		return // cut in the middle
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said[words[0]][k] = true
}

// begun waits until the process does what it is to do.
func (d *doomed) begun(t testing.TB) []string {
	t.Helper()
	select {
	case words := <-d.ready:
		return words
	case <-d.gone:
		t.Fatal("the process has ended")
	case <-time.After(4 * bound):
		t.Fatal("the process does not begin")
	}
	return nil
}

// kill kills the process, and returns when it is gone and all that it has said is there.
func (d *doomed) kill() {
	_ = d.cmd.Process.Kill() // it may be gone
	<-d.gone
	_ = d.cmd.Wait()
}

func (d *doomed) has(what string, k uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.said[what][k]
}

// kills is how many of so many are done: a share of them.
func kills(of int) int { return max(2, int(int64(of)/max(1, *share))) }

// A server is killed in the middle of its work, again and again, on every wire: each stream of its
// client is told so once, none looks whole that is not, none is said not to be processed that a
// handler has begun with, and the same client goes on with the next server.
func TestKilledServers(t *testing.T) {
	ofSystem(t)
	rnd := rand.New(rand.NewPCG(*from, 3))
	server := startDoomed(t, "victim server")
	at := server.begun(t)
	var last atomic.Uint64
	var before resources
	for i := range kills(200) {
		n := int(*from) + i
		l, err := newLoad(n, at[1+n/len(wires)%2], &last, nil)
		testkit.OK(t, err)
		l.start()
		<-l.enough
		time.Sleep(time.Duration(rnd.Int64N(int64(30 * time.Millisecond))))
		server.kill()
		l.stop()
		next := startDoomed(t, "victim server", envAddr+"="+at[1], envTLS+"="+at[2])
		next.begun(t)
		if !l.works() {
			t.Errorf("%s: no stream works with the next server", l.sc.row())
		}
		l.close(t)
		for j := range l.accounts {
			survives(t, l, &l.accounts[j], server, next)
		}
		if *tell {
			t.Log(l)
		}
		server = next
		if left := atRest(&before); left != "" {
			t.Errorf("leak: kill %d: %s", i, left)
		}
	}
}

// survives checks what the client of a killed server was told of a stream or call.
func survives(t *testing.T, l *load, a *account, servers ...*doomed) {
	t.Helper()
	said := func(what string) bool {
		for _, d := range servers {
			if d.has(what, a.Key) {
				return true
			}
		}
		return false
	}
	whole := a.Clean || a.Acked && l.caps.Ended
	// Who lives has said it, and it may not have been heard yet.
	ended := whole && eventually(func() bool { return said(hasEnded) })
	begun := said(hasBegun) || a.Answered && eventually(func() bool { return said(hasBegun) })
	bad := a.Wrong
	switch {
	case whole && !ended:
		bad = append(bad, "falsely ended: the server has not ended it")
	case whole && a.Got != l.sc.streamOf(a.Key).down.messages:
		bad = append(bad, "lost: messages before an end in order")
	case a.Answered && !begun:
		bad = append(bad, "a call is answered that no handler has seen")
	case a.Refused && begun:
		bad = append(bad, "said not to be processed, and a handler has run")
	}
	for _, w := range bad {
		t.Errorf("%s: %s: %+v", l.sc.row(), w, *a)
	}
}

// A client is killed in the middle of its work: the server is told of each stream's end once, takes
// none for whole that is not, and has nothing left of it.
func TestKilledClients(t *testing.T) {
	ofSystem(t)
	rnd := rand.New(rand.NewPCG(*from, 4))
	p, err := newPair("", "", nil)
	testkit.OK(t, err)
	var before resources
	for i := range kills(200) {
		n := int(*from) + i
		client := startDoomed(t, "victim client", envAddr+"="+p.of(n).addr, fmt.Sprintf("%s=%d %d", envLoad, n, uint64(i)<<32))
		client.begun(t)
		time.Sleep(time.Duration(rnd.Int64N(int64(30 * time.Millisecond))))
		client.kill()
		p.rest(t)
		all := map[uint64]*account{}
		p.take(all)
		whole := 0
		for k, a := range all {
			sc := p.plain.sc
			bad := a.Wrong
			if a.Clean {
				whole++
				if !client.has(hasEnded, k) {
					bad = append(bad, "falsely ended: the client has not ended it")
				}
				if a.Got != sc.streamOf(k).up.messages {
					bad = append(bad, "lost: messages before an end in order")
				}
			}
			for _, w := range bad {
				t.Errorf("%s: %s: %+v", wires[n%len(wires)].name, w, *a)
			}
		}
		if *tell {
			t.Logf("%s: %d streams and calls, %d streams read to their end", wires[n%len(wires)].name, len(all), whole)
		}
		if left := atRest(&before); left != "" {
			t.Errorf("leak: kill %d: %s", i, left)
		}
	}
	p.close(t)
}

// A server drains under load, and the next one takes its place: no stream or call is lost that a
// handler has begun with.
func TestDrains(t *testing.T) {
	ofSystem(t)
	rnd := rand.New(rand.NewPCG(*from, 5))
	p, err := newPair("", "", nil)
	testkit.OK(t, err)
	var last atomic.Uint64
	for i := range kills(50) {
		n := int(*from) + i
		l, err := newLoad(n, p.of(n).addr, &last, nil)
		testkit.OK(t, err)
		l.start()
		<-l.enough
		time.Sleep(time.Duration(rnd.Int64N(int64(30 * time.Millisecond))))
		all := map[uint64]*account{}
		next := drain(t, p, p.of(n))
		if !l.works() {
			t.Errorf("%s: no stream works with the next server", l.sc.row())
		}
		l.stop()
		l.close(t)
		next.rest(t)
		p.take(all)
		next.take(all)
		for j := range l.accounts {
			c := &l.accounts[j]
			s := all[c.Key]
			if s == nil {
				s = &account{Key: c.Key}
			}
			bad := append(both(c, s, l.caps.Ended), append(c.Wrong, s.Wrong...)...)
			// A stream that has a connection of its own may have found the next server, where its
			// parent is not known.
			missed := l.caps.StreamsByID && s.Got+s.Sent == 0
			if whole := c.Clean || c.Acked || c.Answered; !whole && s.Begun > 0 && !missed {
				bad = append(bad, "lost in a drain")
			}
			for _, w := range bad {
				t.Errorf("%s: %s: client %+v, server %+v; connections ended at the client %q, at the server %q", l.sc.row(), w, *c, *s, l.told.ends, p.of(n).told.ends)
			}
		}
		if *tell {
			t.Log(l)
		}
		p = next
	}
	p.close(t)
}

// drain drains p, of which one is busy, in favour of another pair at the same addresses, which it returns.
func drain(t *testing.T, p *pair, busy *served) *pair {
	t.Helper()
	idle := p.plain
	if busy == idle {
		idle = p.secure
	}
	testkit.OK(t, idle.srv.Shutdown(t.Context()))
	drained := make(chan error, 1)
	go func() { drained <- busy.srv.Shutdown(t.Context()) }() // until the streams have ended
	<-busy.srv.Draining()
	next, err := newPair(p.plain.addr, p.secure.addr, nil)
	testkit.OK(t, err)
	testkit.OK(t, <-drained)
	for _, s := range []*served{p.plain, p.secure} {
		if left := s.rest(); left != "" {
			t.Errorf("left at the drained server: %s", left)
		}
		<-s.served
		for _, w := range append(s.wrongs, s.told.wrong()...) {
			t.Errorf("server: %s", w)
		}
	}
	return next
}
