package report

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestTheTablesAreInThePageItself(t *testing.T) {
	page := written(t, func(b *bytes.Buffer) error { return sample().HTML(b) })
	for _, want := range []string{"<td>30000</td>", "PASS", "FAIL", "A &lt;CPU&gt;", "service (from when sent)", "recovered in 12.3ms", "load demo pingpong --rate 10k"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	// uPlot's licence line names its home; nothing may be fetched.
	for _, fetch := range regexp.MustCompile(`(?:src|href)="[^"]*"|@import|url\(`).FindAllString(page, -1) {
		t.Errorf("the page fetches something: %s", fetch)
	}
}

func TestAReportCannotEndTheScriptItIsIn(t *testing.T) {
	r := sample()
	r.Command = "</script><script>alert(1)</script>"
	page := written(t, func(b *bytes.Buffer) error { return r.HTML(b) })
	if strings.Contains(page, r.Command) {
		t.Error("the command went in as it was")
	}
}

// requireChromium demands the browser tests: with it a machine without the
// browser fails them.
const requireChromium = "SLUICE_REQUIRE_CHROMIUM"

// chromium runs the browser on a page and returns its standard output.
func chromium(t *testing.T, page string, args ...string) string {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv(requireChromium) != "" {
			t.Fatalf("no chromium here, and %s demands it", requireChromium)
		}
		t.Skipf("no chromium here: the page is not looked at (%s=1 makes that a failure)", requireChromium)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--user-data-dir=" + filepath.Join(dir, "profile"), "--window-size=1280,2600", "--virtual-time-budget=3000"}, args...)
	cmd := exec.CommandContext(ctx, path, append(args, "file://"+file)...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return string(out)
}

func TestThePageInABrowser(t *testing.T) {
	page := written(t, func(b *bytes.Buffer) error { return sample().HTML(b) })
	shot := filepath.Join(t.TempDir(), "page.png")
	chromium(t, page, "--screenshot="+shot)
	img := picture(t, shot)
	// The plots are the last part: their lines are in the first series' blue.
	if n := blue(img); n < 500 {
		t.Errorf("%d blue pixels: the plots were not drawn", n)
	}
	dom := chromium(t, page, "--dump-dom")
	charts := len(sample().Runs[0].charts())
	if n := strings.Count(dom, "<canvas"); n != charts {
		t.Errorf("%d canvases, want %d", n, charts)
	}
	if !strings.Contains(dom, `href="blob:`) {
		t.Error("the script did not run to its end")
	}
}

func TestThePageWithoutJavaScript(t *testing.T) {
	page := written(t, func(b *bytes.Buffer) error { return sample().HTML(b) })
	// The browser needs its own scripts for the screenshot: forbid the page's.
	page = strings.Replace(page, "<head>", `<head><meta http-equiv="Content-Security-Policy" content="script-src 'none'">`, 1)
	shot := filepath.Join(t.TempDir(), "page.png")
	chromium(t, page, "--screenshot="+shot)
	img := picture(t, shot)
	if n := blue(img); n > 50 {
		t.Errorf("%d blue pixels: plots without JavaScript?", n)
	}
	if n := dark(img); n < 5000 {
		t.Errorf("%d dark pixels: the tables were not drawn", n)
	}
}

func picture(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func count(img image.Image, is func(r, g, b uint32) bool) (n int) {
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			if is(r>>8, g>>8, b>>8) {
				n++
			}
		}
	}
	return n
}

func blue(img image.Image) int {
	return count(img, func(r, g, b uint32) bool { return r < 60 && g > 80 && g < 140 && b > 190 })
}

func dark(img image.Image) int {
	return count(img, func(r, g, b uint32) bool { return r < 70 && g < 70 && b < 70 })
}
