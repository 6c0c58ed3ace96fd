package admin_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/admin"
)

// requireBrowser asks for the tests in a browser: they need chromium, and npm to install what
// drives it. Without it they are not run, with it a machine without these fails.
const requireBrowser = "SLUICE_REQUIRE_BROWSER"

// shots names a directory for pictures of the pages.
const shots = "SLUICE_BROWSER_SHOTS"

// TestInABrowser has a real browser open every page, under load and with 10,000 streams:
// testdata/browser/look.js says what must hold.
func TestInABrowser(t *testing.T) {
	if os.Getenv(requireBrowser) == "" {
		t.Skipf("%s=1 runs it", requireBrowser)
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "browser"))); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out.Bytes())
		}
		t.Logf("%s", out.Bytes())
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	}

	level := new(slog.LevelVar)
	s := newScenario(t, &admin.Options{Token: token, Level: level}, 10_000)
	crowd, front := s.dial(), s.dial()
	s.idle(crowd, 10_000)
	s.pages.AddClient("backend", front)
	s.traffic(front, 8)
	s.stuck(crowd)
	s.open(front, hostile)
	s.failure()
	run("node", "look.js", chromium, s.url, token, hostile, os.Getenv(shots))
	if level.Level() != slog.LevelDebug {
		t.Errorf("the level is %v: the browser has set another", level.Level())
	}
}
