package report

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"math"
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
	charts := len(sample().Runs[0].charts()) + 1 // the knee's
	if n := strings.Count(dom, "<canvas"); n != charts {
		t.Errorf("%d canvases, want %d", n, charts)
	}
	if !strings.Contains(dom, `href="blob:`) {
		t.Error("the script did not run to its end")
	}
}

// No table is wider than its place, where its last column could not be seen.
func TestTheTablesFitInABrowser(t *testing.T) {
	r := sample()
	r.Runs[0].Checks = Checks{Messages: 123_456_789_012, Lost: 123_456_789, Duplicated: 123_456_789, Reordered: 123_456_789, Corrupted: 123_456_789, Unconfirmed: 123_456_789}
	page := written(t, func(b *bytes.Buffer) error { return r.HTML(b) })
	const look = `<script>document.title = [...document.querySelectorAll(".tables > div")].map((d) =>
		d.querySelector("h3").textContent + (d.scrollWidth > d.clientWidth ? " SCROLLS" : " fits")).join(", ") +
		(document.documentElement.scrollWidth > innerWidth ? ", the page SCROLLS" : "");</script>`
	page = strings.Replace(page, "</body>", look+"</body>", 1)
	for _, width := range []string{"1280", "900", "500"} {
		dom := chromium(t, page, "--dump-dom", "--window-size="+width+",2600")
		_, title, _ := strings.Cut(dom, "<title>")
		title, _, _ = strings.Cut(title, "</title>")
		if strings.Contains(title, "SCROLLS") || !strings.Contains(title, "Checks fits") || !strings.Contains(title, "Both sides fits") {
			t.Errorf("at a width of %s: %s", width, title)
		}
	}
}

// What was not measured is not drawn as 0, and what is high does not hide what is low.
func TestCharts(t *testing.T) {
	r := sample()
	run := r.Runs[0]
	run.Series[1].Response = Latency{}
	run.Series[2].Server = Gauge{}
	byTitle := map[string]chart{}
	for _, c := range append(run.charts(), r.kneeCharts()...) {
		byTitle[c.Title] = c
		for n, column := range c.Data {
			if len(column) != len(c.Data[0]) || len(c.Data) != 1+len(c.Series) {
				t.Errorf("%s: column %d has %d values beside %d", c.Title, n, len(column), len(c.Data[0]))
			}
		}
	}
	latency := byTitle["Latency over time, ms"]
	if text, err := json.Marshal(latency.Data[1]); err != nil || !latency.LogY || string(text) != "[0.9001,null,0.9001]" {
		t.Errorf("latency over time, logarithmic %v: %s, %v", latency.LogY, text, err)
	}
	if text, err := json.Marshal(byTitle["CPUs in use"].Data[2]); err != nil || string(text) != "[0.3,0.3,null]" {
		t.Errorf("the server's CPUs: %s, %v", text, err)
	}
	messages := byTitle["Messages by latency, % of all"]
	if len(messages.Series) != 2 || !messages.LogX {
		t.Fatalf("the histogram has %d series", len(messages.Series))
	}
	for n := range messages.Series {
		sum := 0.0
		for i, share := range messages.Data[n+1] {
			sum += float64(share)
			if ms := messages.Data[0][i]; share > 0 && (ms < 0.17 || ms > 2.71) { // 200 us to 2.7 ms
				t.Errorf("%s: %v %% at %v ms", messages.Series[n].Label, share, ms)
			}
		}
		if math.Abs(sum-100) > 1e-6 {
			t.Errorf("%s: %v %% of the messages", messages.Series[n].Label, sum)
		}
	}
	r.Knee = append(r.Knee, Probe{Rate: 1500, P99: 5e6, Invalid: []string{"late"}})
	text, err := json.Marshal(r.kneeCharts()[0].Data)
	if err != nil || string(text) != "[[1000,1500,2000],[1,null,null],[null,null,9],[null,5,null]]" {
		t.Errorf("the knee: %s, %v", text, err)
	}
}

func TestTheKneesVerdictIsOnThePage(t *testing.T) {
	r := sample()
	page := written(t, func(b *bytes.Buffer) error { return r.HTML(b) })
	if !strings.Contains(page, `<p class="good">knee: the SLO holds up to 1k/s, and is missed at 2k/s</p>`) {
		t.Error("no verdict")
	}
	r.Knee[1].Invalid = []string{"late"}
	page = written(t, func(b *bytes.Buffer) error { return r.HTML(b) })
	if !strings.Contains(page, `<p class="bad">no knee found: the SLO holds at 1k/s, and at 2k/s the client is the bottleneck (INVALID)</p>`) {
		t.Error("no verdict on the client")
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
