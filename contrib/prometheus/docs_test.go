package sluiceprometheus

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/tally"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

const page = "../../docs/metrics.md"

func readPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The page lists every metric under both names, with unit, kind, labels and meaning, and no other.
func TestThePageHasTheMetrics(t *testing.T) {
	var want []string
	row := func(m tally.Metric, kind string) {
		labels := "–"
		if len(m.Keys) > 0 {
			labels = "`" + strings.Join(labelNames(m.Keys), "` `") + "`"
		}
		want = append(want, "| `"+metricName(&m)+"` | `"+m.Name+"`, "+m.Unit+" | "+kind+" | "+labels+" | "+m.Help+" |")
	}
	for _, m := range []tally.Metric{tally.ServerDuration, tally.ClientDuration, tally.Acceptance} {
		row(m, "histogram")
	}
	for _, m := range tally.Metrics() {
		if m.Counter {
			row(m, "counter")
		} else {
			row(m, "gauge")
		}
	}
	m := regexp.MustCompile(`(?s)<!-- metrics -->\n.*?\n.*?\n(.*?)\n<!-- end -->`).FindStringSubmatch(readPage(t))
	if m == nil {
		t.Fatal("no table")
	}
	got := strings.Split(m[1], "\n")
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("not on the page: %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("only on the page: %s", g)
		}
	}
}

// block returns the fenced blocks of the page in a language.
func blocks(t *testing.T, language string) (found []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(readPage(t), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// The page's program, built and run as it stands there, prints what the page says after the echo that the
// page makes. Only its ports are others, since those of the page may be taken.
func TestThePagesProgram(t *testing.T) {
	program, printed := blocks(t, "go")[0], blocks(t, "")[0]
	addr, metrics := freeAddr(t), freeAddr(t)
	for from, to := range map[string]string{"127.0.0.1:7700": addr, "127.0.0.1:7701": metrics} {
		if strings.Count(program, from) != 1 {
			t.Fatalf("%s is not in the program once", from)
		}
		program = strings.ReplaceAll(program, from, to)
	}
	dir, err := os.MkdirTemp(".", "testdata-page-") // in this module, so that it is built with its requirements
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "measured")
	if runtime.GOOS == "windows" {
		exe += ".exe"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", exe, "./"+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})

	client, err := kernel.NewClient(addr, &kernel.ClientOptions{Backoff: kernel.Backoff{First: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := client.Open(ctx, "echo", &kernel.OpenOptions{WaitForReady: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(ctx, pool.MessageOf([]byte("hello"))); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for m, err := range s.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	wanted := strings.Split(strings.TrimSpace(printed), "\n")
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		text := get(ctx, "http://"+metrics+"/metrics")
		missing := slices.DeleteFunc(slices.Clone(wanted), func(line string) bool { return strings.Contains(text, line+"\n") })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("missing: %q\n%s", missing, text)
		}
	}
}

// get returns what is at an address, "" if nothing is.
func get(ctx context.Context, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
