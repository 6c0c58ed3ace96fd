package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseLine(t *testing.T) {
	for line, want := range map[string]Endpoint{
		"":                             {},
		"  # only a comment":           {},
		"a:1":                          {Addr: "a:1", Weight: 1},
		" a:1 ":                        {Addr: "a:1", Weight: 1},
		"a:1 blue":                     {Addr: "a:1", Weight: 1, Tag: "blue"},
		"a:1\tzone a  # why":           {Addr: "a:1", Weight: 1, Tag: "zone a"},
		"a:1#no tag":                   {Addr: "a:1", Weight: 1},
		"a:1 10":                       {Addr: "a:1", Weight: 10, Tag: "10"},
		"a:1 10 blue":                  {Addr: "a:1", Weight: 10, Tag: "10 blue"},
		"a:1 1/3":                      {Addr: "a:1", Weight: 1, Tag: "1/3"},
		"[::1]:80 5":                   {Addr: "[::1]:80", Weight: 5, Tag: "5"},
		"unix:/run/a 2\r":              {Addr: "unix:/run/a", Weight: 2, Tag: "2"},
		"a:1 " + fmt.Sprint(MaxWeight): {Addr: "a:1", Weight: MaxWeight, Tag: fmt.Sprint(MaxWeight)},
	} {
		if got, err := parseLine(line); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{"a", ":1", "a:", "a:1 0", "a:1 -3", "a:1 1000001", "a:1 99999999999999999999", "::1:1", "a/b:1", "unix:", "\x00:1", strings.Repeat("a", 2000) + ":1"} {
		if got, err := parseLine(line); err == nil || got != (Endpoint{}) {
			t.Errorf("%q: %+v, %v, want an error", line, got, err)
		}
	}
}

func TestBadLinesAreLeftOutAndNamed(t *testing.T) {
	set := parse([]string{"a:1", "b", "c", "d", "e", "f:1"})
	if got := addrs(set); !slices.Equal(got, []string{"a:1", "f:1"}) {
		t.Errorf("%q", got)
	}
	if set.Err == nil || !strings.Contains(set.Err.Error(), "endpoint b: ") || !strings.Contains(set.Err.Error(), "and 1 more") {
		t.Errorf("%v", set.Err)
	}
}

func addrs(s Set) (all []string) {
	for _, e := range s.Endpoints {
		all = append(all, e.Addr)
	}
	return all
}

func FuzzParse(f *testing.F) {
	f.Add("a:1 10 # x\n[::1]:2 tag\n\nunix:/a\nbad")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		set := parse(lines)
		if len(set.Endpoints) > len(lines) {
			t.Fatalf("%d endpoints of %d lines", len(set.Endpoints), len(lines))
		}
		for _, e := range set.Endpoints {
			again := e
			if err := again.check(); err != nil || again != e || e.Weight < 1 {
				t.Errorf("%+v: %v", e, err)
			}
			line := e.Addr + " " + e.Tag
			if got, err := parseLine(line); err != nil || got != e {
				t.Errorf("%q is %+v, %v, and was %+v", line, got, err, e)
			}
		}
		if set.Err != nil && len(set.Err.Error()) > 20*mostText {
			t.Errorf("an error of %d bytes", len(set.Err.Error()))
		}
	})
}

func TestListIsItsName(t *testing.T) {
	sets := resolvers()["list"](t.Context(), "a:1, b:2 7,c:3 blue", nil)
	want := []Endpoint{{Addr: "a:1", Weight: 1}, {Addr: "b:2", Weight: 7, Tag: "7"}, {Addr: "c:3", Weight: 1, Tag: "blue"}}
	if got := <-sets; got.Err != nil || !slices.Equal(got.Endpoints, want) {
		t.Errorf("%+v", got)
	}
	select {
	case s, ok := <-sets:
		t.Errorf("and then %v, %v", s, ok)
	default:
	}
}

// A fileTest is a file that is watched, in a bubble.
type fileTest struct {
	t    *testing.T
	path string
	sets <-chan Set
}

func inFile(t *testing.T, text string, f func(*fileTest)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "servers")
	synctest.Test(t, func(t *testing.T) {
		w := &fileTest{t: t, path: path}
		if text != "" {
			w.write(text)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.sets = resolvers()["file"](ctx, path, nil)
		f(w)
		cancel()
		for range w.sets { // it is closed
		}
	})
}

func (w *fileTest) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *fileTest) want(addresses ...string) {
	w.t.Helper()
	s := <-w.sets
	if got := addrs(s); !slices.Equal(got, addresses) || s.Err != nil {
		w.t.Errorf("%q, %v, want %q", got, s.Err, addresses)
	}
}

func (w *fileTest) wantErr() {
	w.t.Helper()
	if s := <-w.sets; s.Err == nil || len(s.Endpoints) > 0 {
		w.t.Errorf("%+v, want an error", s)
	}
}

func (w *fileTest) wantNothing(d time.Duration) {
	w.t.Helper()
	select {
	case s := <-w.sets:
		w.t.Errorf("%+v", s)
	case <-time.After(d):
	}
}

func TestFileIsReadAgainWhenItChanges(t *testing.T) {
	inFile(t, "a:1\nb:2 # two\n", func(w *fileTest) {
		w.want("a:1", "b:2")
		w.wantNothing(time.Hour)
		w.write("a:1\nb:2\nc:3\n")
		start := time.Now()
		w.want("a:1", "b:2", "c:3")
		if d := time.Since(start); d > 3*filePoll {
			t.Errorf("after %v", d)
		}
	})
}

func TestFileThatIsReplacedIsRead(t *testing.T) {
	inFile(t, "a:1\n", func(w *fileTest) {
		w.want("a:1")
		other := w.path + ".new"
		if err := os.WriteFile(other, []byte("z:9\n"), 0o600); err != nil { // of the same length
			t.Fatal(err)
		}
		if err := os.Rename(other, w.path); err != nil {
			t.Fatal(err)
		}
		w.want("z:9")
	})
}

// A writer that takes its time is waited for: half a file has fewer endpoints than there are.
func TestFileThatIsBeingWrittenWaits(t *testing.T) {
	inFile(t, "a:1\nb:2\n", func(w *fileTest) {
		w.want("a:1", "b:2")
		text := ""
		for i := range 20 {
			text += fmt.Sprintf("c:%d\n", i+1)
			w.write(text)
			w.wantNothing(filePoll * 3 / 4) // a look never sees the same twice
		}
		if s := <-w.sets; len(s.Endpoints) != 20 {
			t.Errorf("%d endpoints", len(s.Endpoints))
		}
	})
}

func TestFileThatIsMissingIsAnErrorOnce(t *testing.T) {
	inFile(t, "", func(w *fileTest) {
		w.wantErr()
		w.wantNothing(time.Hour)
		w.write("a:1\n")
		w.want("a:1")
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		w.wantErr()
		w.write("\n")
		w.wantErr() // no endpoints
	})
}

func TestFileThatIsNoneIsAnError(t *testing.T) {
	inFile(t, "", func(w *fileTest) {
		w.wantErr()
		if err := os.Mkdir(w.path, 0o700); err != nil {
			t.Fatal(err)
		}
		w.wantErr()
	})
}

// A names is a DNS server's answers.
type names struct {
	hosts   []string
	records []*net.SRV
	err     error
	asked   []time.Time
}

func (n *names) LookupHost(ctx context.Context, _ string) ([]string, error) {
	n.asked = append(n.asked, time.Now())
	if n.err == context.DeadlineExceeded {
		<-ctx.Done()
	}
	return n.hosts, n.err
}

func (n *names) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", n.records, n.err
}

func TestDNSGivesAddressesAndTheirName(t *testing.T) {
	n := &names{hosts: []string{"10.0.0.1", "fd00::1"}}
	got := resolve(t.Context(), n, "svc.test:443")
	want := []Endpoint{{Addr: "10.0.0.1:443", Name: "svc.test:443"}, {Addr: "[fd00::1]:443", Name: "svc.test:443"}}
	if got.Err != nil || !slices.Equal(got.Endpoints, want) {
		t.Errorf("%+v", got)
	}
	n.hosts = []string{"10.0.0.1"}
	if got := resolve(t.Context(), n, "10.0.0.1:443"); !slices.Equal(got.Endpoints, []Endpoint{{Addr: "10.0.0.1:443"}}) {
		t.Errorf("%+v", got)
	}
}

func TestDNSThatFindsNothingIsAnError(t *testing.T) {
	bad := errors.New("no such host")
	for name, n := range map[string]*names{
		"svc.test:443": {err: bad},
		"svc.test":     {hosts: []string{"10.0.0.1"}},
		"none.test:1":  {},
		"_a._tcp.test": {err: bad},
		"_b._tcp.test": {},
		"_c._tcp.test": {records: []*net.SRV{{Target: ".", Port: 0}}},
	} {
		if got := resolve(t.Context(), n, name); got.Err == nil || len(got.Endpoints) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDNSTakesTheFirstPriorityOfSRV(t *testing.T) {
	n := &names{records: []*net.SRV{
		{Target: "b.test.", Port: 2, Priority: 20, Weight: 9}, {Target: "a.test.", Port: 1, Priority: 10, Weight: 3}, {Target: "c.test.", Port: 3, Priority: 10},
	}, err: errors.New("a record is malformed")}
	want := Set{Endpoints: []Endpoint{{Addr: "a.test:1", Weight: 3}, {Addr: "c.test:3", Weight: 1}}, Err: n.err}
	if got := resolve(t.Context(), n, "_svc._tcp.test"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

// A lookup comes once in an interval, and after a failure, but once a second at most.
func TestDNSAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{hosts: []string{"10.0.0.1"}}
		ctx, cancel := context.WithCancel(t.Context())
		again := make(chan struct{}, 1)
		start := time.Now()
		sets := dns(0, n)(ctx, "svc.test:1", again)
		<-sets
		again <- struct{}{}
		<-sets // after a second
		<-sets // after 30 s more
		time.Sleep(5 * time.Second)
		again <- struct{}{}
		<-sets // at once
		cancel()
		for range sets {
		}
		var after []time.Duration
		for _, at := range n.asked {
			after = append(after, at.Sub(start))
		}
		want := []time.Duration{0, time.Second, 31 * time.Second, 36 * time.Second}
		if !slices.Equal(after, want) {
			t.Errorf("asked after %v, want %v", after, want)
		}
	})
}

func TestDNSThatDoesNotAnswerIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got := resolve(t.Context(), &names{err: context.DeadlineExceeded}, "svc.test:1")
		if d := time.Since(start); got.Err == nil || d != dnsTimeout {
			t.Errorf("%+v after %v", got, d)
		}
	})
}
