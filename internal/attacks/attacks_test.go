package attacks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// all is whether every attack runs under every limit.
var all = os.Getenv("SLUICE_ATTACKS") == "all"

// What is asked of a server under attack.
const (
	overLimit = 1.2                    // memory, of GOMEMLIMIT;
	overSmall = 96                     // MiB of it under a limit of 64 MiB
	slower    = 5                      // an honest client's p99, times that without an attack,
	slow      = 5 * time.Millisecond   // or this,
	slowHere  = 50 * time.Millisecond  // or this where not all attacks run: others may use the machine
	getsIn    = second                 // a new client's connection and first call, and any call
	between   = 5 * time.Millisecond   // calls of the honest client
	newcomers = 200 * time.Millisecond // new clients
)

// Under attack a server stays within its memory, an honest client's calls are answered as fast
// as before, and new clients get in.
func TestServerUnderAttack(t *testing.T) {
	if testkit.RaceEnabled || testing.Short() {
		t.Skip("the race detector takes memory and time of its own")
	}
	limits, long := []int{128}, 5*second
	if all {
		limits, long = []int{64, 128, 256, 512}, 10*second
	}
	for _, limit := range limits {
		for _, name := range slices.Sorted(maps.Keys(attacks)) {
			if name == "nothing" || !all && !attacks[name].short {
				continue
			}
			t.Run(fmt.Sprintf("%d MiB/%s", limit, name), func(t *testing.T) {
				var wrong []string
				for range 3 { // others may have taken the CPU
					r := measure(t, limit, name, long)
					t.Logf("%4d MiB  %-20s  %s", limit, name, r)
					if wrong = r.wrong(limit); len(wrong) == 0 {
						return
					}
				}
				for _, w := range wrong {
					t.Error(w)
				}
			})
		}
	}
}

// Where no memory is counted, the limit of a server's streams bounds it: so many times what one
// takes with its handler, and what their connections take.
func TestStreamsBoundTheMemoryWithoutABudget(t *testing.T) {
	if testkit.RaceEnabled || testing.Short() {
		t.Skip("the race detector takes memory of its own")
	}
	const streams, conns = 20_000, 200
	srv := start(t, "server", noBudget+"="+strconv.Itoa(streams))
	addr := srv.line(t)
	before := anonymous(srv.cmd.Process.Pid)
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	var most float64
	watcher.Go(func() { most = srv.watch(stop) })
	a := start(t, "opens", "", addr)
	for open := 0; open < streams*8/10; time.Sleep(100 * time.Millisecond) {
		_, _ = fmt.Fprintln(srv.in)
		line := srv.line(t)
		if _, err := fmt.Sscanf(line[strings.Index(line, ",")+1:], "%d streams", &open); err != nil {
			t.Fatal(line, err)
		}
	}
	time.Sleep(2 * second) // nearly all of them tried again
	close(stop)
	watcher.Wait()
	a.end()
	bound := float64(streams*streamSize+conns*connSize) / (1 << 20)
	t.Logf("%.0f MiB at most, %.0f before; %d streams may take %.0f", most, before, streams, bound)
	if most-before > overLimit*bound || most-before < bound/4 {
		t.Errorf("%.0f MiB were taken, of %d streams that may take %.0f", most-before, streams, bound)
	}
}

// What a stream with a handler takes, as docs/operations.md has it, and a connection on an event
// loop with what is unread of it, bytes.
const (
	streamSize = 6 << 10
	connSize   = 32 << 10
)

// A result is what was seen during an attack.
type result struct {
	rss         float64 // the server's at most, MiB
	before, p99 time.Duration
	slowest     time.Duration // call of the honest client
	calls, lost int
	in          time.Duration // the slowest new client
	out         int           // new clients that did not get in
	figures     string        // the server's
}

func (r *result) String() string {
	return fmt.Sprintf("%4.0f MiB, p99 %v before, %v of %d calls, the slowest %v, %d failed, new clients within %v, %d not; %s",
		r.rss, r.before.Round(10*time.Microsecond), r.p99.Round(10*time.Microsecond), r.calls, r.slowest.Round(time.Millisecond), r.lost, r.in.Round(time.Millisecond), r.out, r.figures)
}

func (r *result) wrong(limit int) (w []string) {
	most := overLimit * float64(limit)
	if limit <= 64 {
		most = overSmall
	}
	if r.rss > most {
		w = append(w, fmt.Sprintf("the server took %.0f MiB, at most %.0f are allowed", r.rss, most))
	}
	least := slowHere
	if all {
		least = slow
	}
	if r.p99 > max(slower*r.before, least) {
		w = append(w, fmt.Sprintf("an honest client's p99 is %v, %v without an attack", r.p99, r.before))
	}
	if r.slowest > getsIn {
		w = append(w, fmt.Sprintf("an honest client's call took %v", r.slowest))
	}
	if r.lost > 0 {
		w = append(w, fmt.Sprintf("%d of %d calls of an honest client failed", r.lost, r.calls))
	}
	if r.in > getsIn || r.out > 0 {
		w = append(w, fmt.Sprintf("a new client got in after %v, %d did not", r.in, r.out))
	}
	return w
}

// measure runs one attack on a server with that limit, MiB.
func measure(t *testing.T, limit int, name string, long time.Duration) *result {
	srv := start(t, "server", fmt.Sprintf("GOMEMLIMIT=%dMiB", limit))
	addr := srv.line(t)
	client, err := kernel.Dial(t.Context(), addr, testkit.QuietClient(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	calm := start(t, "nothing", "", addr)
	r := &result{}
	r.before, _, _, _ = talk(t, client, min(long, 3*second))
	calm.end()

	stop := make(chan struct{})
	var watchers sync.WaitGroup
	watchers.Go(func() { r.rss = srv.watch(stop) })
	watchers.Go(func() { r.in, r.out = arrive(t, addr, stop) })
	a := start(t, name, "", addr)
	r.p99, r.slowest, r.calls, r.lost = talk(t, client, long)
	close(stop)
	watchers.Wait()
	_, _ = fmt.Fprintln(srv.in)
	r.figures = srv.line(t)
	a.end()
	srv.end()
	return r
}

// talk makes calls on a stream and by opens of their own for a while. It returns the p99 of
// both and the slowest, how many calls it made, and how many of those failed.
func talk(t *testing.T, client *kernel.Client, long time.Duration) (p99, slowest time.Duration, calls, failed int) {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	var took []time.Duration
	var s *kernel.Stream
	for next := time.Now(); ctx.Err() == nil; next = next.Add(between) {
		time.Sleep(time.Until(next))
		begun := time.Now()
		fresh := s == nil || calls%2 == 0
		err := retry(ctx, func() (err error) {
			if fresh {
				if s, err = client.Open(t.Context(), "echo", nil); err != nil {
					return err
				}
			}
			return say(ctx, s)
		})
		slowest = max(slowest, time.Since(begun))
		if ctx.Err() != nil {
			break
		}
		if calls++; err != nil {
			failed++
			t.Logf("an honest client: %v", err)
			s = nil
			continue
		}
		took = append(took, time.Since(begun))
		if calls%2 == 0 {
			_ = s.CloseSend()
		}
	}
	slices.Sort(took)
	if len(took) == 0 {
		return long, slowest, calls, failed
	}
	return took[len(took)*99/100], slowest, calls, failed
}

// retry calls f until it is not refused as not processed, as a client should that is.
func retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		var se *status.StreamError
		if err == nil || !errors.As(err, &se) || !se.NotProcessed || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// say has an echo say a word.
func say(ctx context.Context, s *kernel.Stream) error {
	m := testkit.Text("word")
	if err := s.Send(ctx, m); err != nil {
		m.Release()
		return err
	}
	m, err := s.Receive(ctx)
	if err == nil && string(m.Bytes()) != "word" {
		err = errors.New("another word")
	}
	m.Release()
	return err
}

// arrive connects new clients until stop is closed. It returns how long the slowest took until
// its first call was answered, and how many failed.
func arrive(t *testing.T, addr string, stop <-chan struct{}) (slowest time.Duration, failed int) {
	for {
		select {
		case <-stop:
			return slowest, failed
		case <-time.After(newcomers):
		}
		begun := time.Now()
		err := visit(t.Context(), addr)
		slowest = max(slowest, time.Since(begun))
		if err != nil {
			failed++
			t.Logf("a new client: %v", err)
		}
	}
}

func visit(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*second)
	defer cancel()
	c, err := kernel.Dial(ctx, addr, testkit.QuietClient(nil))
	if err != nil {
		return err
	}
	defer c.Close()
	return retry(ctx, func() error {
		s, err := c.Open(ctx, "echo", nil)
		if err != nil {
			return err
		}
		return say(ctx, s)
	})
}

// A process is this test's binary in another role.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts one. All but the server are nice.
func start(t *testing.T, as, env string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append([]string{exe}, args...)
	if as != "server" {
		words = append([]string{"nice", "-n", "19"}, words...)
	}
	p := &process{cmd: exec.Command(words[0], words[1:]...)}
	p.cmd.Env = append(os.Environ(), role+"="+as)
	if env != "" {
		p.cmd.Env = append(p.cmd.Env, env)
	}
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	return p
}

// line is what the process says next.
func (p *process) line(t *testing.T) string {
	s, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal("the process ended: ", err)
	}
	return strings.TrimSpace(s)
}

// end ends the process.
func (p *process) end() {
	_ = p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// watch returns the most memory that the process takes until stop is closed, in MiB.
func (p *process) watch(stop <-chan struct{}) (most float64) {
	for {
		most = max(most, anonymous(p.cmd.Process.Pid))
		select {
		case <-stop:
			return most
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// anonymous is the RssAnon of a process, MiB.
func anonymous(pid int) float64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kib) / 1024
		}
	}
	return 0
}
