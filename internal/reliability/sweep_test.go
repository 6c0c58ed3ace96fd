package reliability

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/status"
)

// A session is broken at every byte, in each direction, on every wire, with TLS and without: no
// end is clean that is not one, nobody waits, nothing is lost that was reported as delivered, and
// the next stream works.
func TestEveryByte(t *testing.T) {
	h := startHost(t)
	for tls := range 2 {
		for i := range wires {
			sc := sweptScenario(small | uint64(tls*len(wires)+i))
			t.Run(strings.ReplaceAll(sc.row(), "/", "-"), func(t *testing.T) {
				intact := h.run(t, sc)
				for _, w := range intact.wrong {
					t.Fatalf("intact: %s", w)
				}
				for _, k := range []kind{cut, reset, fin} {
					t.Run(k.String(), func(t *testing.T) {
						s := sweep{t: t, host: h, scenario: sc, intact: intact}
						s.run(k, 1)
					})
				}
			})
		}
	}
}

// Every bit of a session of the native wire changes, in each direction: the connection ends and
// says why, but for the first bytes, which say what wire it is; that is at once, and neither side
// takes what came for an end in order or for what was sent.
// kernel's tests have the same in memory, where the second that it may take is exact.
func TestEveryBit(t *testing.T) {
	h := startHost(t)
	sc := sweptScenario(small)
	s := sweep{t: t, host: h, scenario: sc, intact: h.run(t, sc)}
	s.run(flip, 8)
	if limit := time.Second + 10*s.intact.took; s.slowest > limit {
		t.Errorf("the slowest session took %v, an intact one at most %v", s.slowest, s.intact.took)
	}
}

// A sweep breaks one session at one byte after the other.
type sweep struct {
	t        *testing.T
	host     *host
	scenario *scenario
	intact   outcome // took is that of the slowest intact session

	mu            sync.Mutex
	runs, struck  int
	whole, broken int
	slowest       time.Duration
	failed        int
}

// run breaks the session in one way. Of each byte there are so many cases.
func (s *sweep) run(k kind, cases int64) {
	faults := make(chan fault)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for f := range faults {
				sc := *s.scenario
				sc.fault = f
				o := s.host.run(s.t, &sc)
				s.note(f, &o)
			}
		})
	}
	for _, up := range []bool{false, true} {
		last := s.intact.down
		if up {
			last = s.intact.up
		}
		for _, n := range s.bytes(last * cases) {
			if n%100 == 0 {
				faults <- fault{} // an intact one, for its time
			}
			faults <- fault{kind: k, up: up, at: n / cases, bit: int(n % cases)}
		}
	}
	close(faults)
	all.Wait()
	s.t.Logf("%d sessions of %d bytes to the client and %d to the server, %d struck: %d streams whole, %d broken; the slowest took %v, an intact one at most %v",
		s.runs, s.intact.down, s.intact.up, s.struck, s.whole, s.broken, s.slowest.Round(time.Millisecond), s.intact.took.Round(time.Millisecond))
	if *at < 0 && (s.struck < s.runs/2 || s.broken == 0) {
		s.t.Error("these faults show nothing")
	}
}

// bytes are those of n that are to be broken: the one that was asked for, or a share, which
// follows from the seed.
func (s *sweep) bytes(n int64) (all []int64) {
	if *at >= 0 {
		cases := int64(1)
		if n > max(s.intact.down, s.intact.up) {
			cases = 8
		}
		for c := range cases {
			all = append(all, *at*cases+c)
		}
		return all
	}
	rnd := rand.New(rand.NewPCG(*from, uint64(n)))
	for i := range n {
		if rnd.Int64N(*share) == 0 {
			all = append(all, i)
		}
	}
	return all
}

func (s *sweep) note(f fault, o *outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.kind == none {
		s.intact.took = max(s.intact.took, o.took)
	} else {
		s.runs++
		s.slowest = max(s.slowest, o.took)
	}
	if o.struck {
		s.struck++
		s.whole += o.whole - 1 // the last one comes on a whole path
		s.broken += o.broken
	}
	wrong := o.wrong
	if f.kind == flip && o.struck && f.at >= int64(len(native.Magic)) && !explained(o) {
		wrong = append(wrong, fmt.Sprintf("neither side says why: client %q, server %s", o.ends, o.log))
	}
	if len(wrong) > 0 {
		if s.failed++; s.failed <= 10 {
			s.t.Errorf("%v, bit %d: %s\nonce more: go test ./internal/reliability -run '^%s$' -at %d", f, f.bit, strings.Join(wrong, "\n\t"), s.t.Name(), f.at)
		}
	}
}

// explained tells whether a side says that what came is not what was sent.
func explained(o *outcome) bool {
	all := strings.Join(o.ends, "\n") + o.log
	for _, c := range []status.Code{status.Checksum, status.Protocol, status.Version} {
		if strings.Contains(all, c.String()) {
			return true
		}
	}
	return false
}
