package main

import (
	"strings"
	"testing"
)

const aReport = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="A" package="http2/1" id="1" tests="2" skipped="0" failures="0" errors="1">
    <testcase package="http2/1" classname="good" time="0.1"></testcase>
    <testcase package="http2/1" classname="bad" time="0.1">
      <error>DATA \x00frame</error>
    </testcase>
  </testsuite>
  <testsuite name="B" package="http2/2" id="2" tests="1" skipped="1" failures="0" errors="0">
    <testcase package="http2/2" classname="left out" time="0.1"><skipped></skipped></testcase>
  </testsuite>
</testsuites>`

func TestReadReport(t *testing.T) {
	r, err := readReport([]byte(strings.ReplaceAll(aReport, `\x00`, "\x00")))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(r.passed, ",") + "|" + strings.Join(r.failed, ",") + "|" + strings.Join(r.skipped, ",")
	if want := "http2/1: good|http2/1: bad|http2/2: left out"; got != want {
		t.Errorf("the report says %q, not %q", got, want)
	}
}

func TestJudge(t *testing.T) {
	passed := make([]string, h2specCases)
	for _, tc := range []struct {
		name string
		r    specReport
		want string // in the error; empty: there is none
	}{
		{"all", specReport{passed: passed}, ""},
		{"an exception", specReport{passed: passed[1:], failed: []string{"x"}}, ""},
		{"no exception", specReport{passed: passed[1:], failed: []string{"y"}}, "failed: y"},
		{"skipped", specReport{passed: passed[1:], skipped: []string{"x"}}, "skipped: x"},
		{"too few cases", specReport{passed: passed[1:]}, "144 cases"},
		{"too few that pass", specReport{passed: passed[8:], failed: []string{"x", "x", "x", "x", "x", "x", "x", "x"}}, "137 cases have passed"},
	} {
		err := tc.r.judge(map[string]string{"x": "a reason"})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: the error is %v", tc.name, err)
		}
	}
}

func TestConversation(t *testing.T) {
	const fine = "[  0.020] recv (stream_id=13) grpc-status: 0\n" +
		"[  0.020] send GOAWAY frame <length=8, flags=0x00, stream_id=0>\n          (last_stream_id=0, error_code=NO_ERROR(0x00), opaque_data(0)=[])\n"
	for _, tc := range []struct {
		name, out string
		ok        bool
	}{
		{"in order", fine, true},
		{"sent, not received", strings.ReplaceAll(fine, "recv", "send"), false},
		{"a reset", fine + "[  0.020] recv RST_STREAM frame <length=4, flags=0x00, stream_id=13>\n", false},
		{"an error of the connection", strings.Replace(fine, "NO_ERROR(0x00)", "PROTOCOL_ERROR(0x01)", 1), false},
		{"an error of ours", strings.Replace(fine, "NO_ERROR(0x00)", "INADEQUATE_SECURITY(0x0c)", 1), false},
	} {
		if err := conversation(tc.out, "grpc-status: 0"); (err == nil) != tc.ok {
			t.Errorf("%s: the error is %v", tc.name, err)
		}
	}
}

func TestAllSucceeded(t *testing.T) {
	const fine = "requests: 20 total, 20 started, 20 done, 20 succeeded, 0 failed, 0 errored, 0 timeout\n" +
		"status codes: 20 2xx, 0 3xx, 0 4xx, 0 5xx\n"
	for out, ok := range map[string]bool{
		fine: true,
		strings.Replace(fine, "20 succeeded, 0 failed", "19 succeeded, 1 failed", 1): false,
		strings.Replace(fine, "20 2xx, 0 3xx", "19 2xx, 1 3xx", 1):                   false,
		strings.Replace(fine, "20 total", "30 total", 1):                             false,
	} {
		if err := allSucceeded(out, "20"); (err == nil) != ok {
			t.Errorf("%s: the error is %v", out, err)
		}
	}
}

func TestResults(t *testing.T) {
	cases := []string{"a", "b c"}
	if found, err := results("a: ok\nb c: ok\n", nil, cases); found != "2 of 2" || err != nil {
		t.Errorf("all: %q, %v", found, err)
	}
	if found, err := results("a: ok\nb c: it is wrong\n", nil, cases); found != "1 of 2" || err == nil {
		t.Errorf("one: %q, %v", found, err)
	}
	if found, err := results("a: ok\n", nil, cases); found != "1 of 2" || err == nil {
		t.Errorf("one that has not run: %q, %v", found, err)
	}
}

func TestTotal(t *testing.T) {
	m := total.FindStringSubmatch("FAILED: x\n\nTotal cases: 374\n370 passed, 4 failed\n")
	if len(m) != 4 || m[1] != "374" || m[2] != "370" || m[3] != "4" {
		t.Errorf("the total is %q", m)
	}
}

func TestPageFiles(t *testing.T) {
	files, output := pageFiles("text\n```go\n// a/b.go\npackage b\n```\n```yaml\n# c.yaml\nx: 1\n```\n```sh\n# no file.\n```\n```text\nout\n```\n")
	if len(files) != 2 || files["a/b.go"] != "// a/b.go\npackage b\n" || files["c.yaml"] != "# c.yaml\nx: 1\n" || output != "out\n" {
		t.Errorf("files %q, output %q", files, output)
	}
}
