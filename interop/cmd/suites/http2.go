package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// exceptions are the cases of h2spec that our server need not pass, with the section of RFC 9113
// that lets it.
var exceptions = map[string]string{
	"http2/3.5: Sends invalid connection preface": "section 3.4: the connection is closed, and GOAWAY may be omitted. What is not read of " +
		"the preface makes that a reset, and h2spec knows only a FIN",
	"http2/5.3.1: Sends HEADERS frame that depend on itself":  "section 5.3.2: priorities are deprecated, and ignored",
	"http2/5.3.1: Sends PRIORITY frame that depend on itself": "section 5.3.2: priorities are deprecated, and ignored",
}

// h2specCases is how many cases h2spec has, and h2specPasses how many of them a server must
// pass, whatever the exceptions.
const (
	h2specCases  = 145
	h2specPasses = 138
)

// method is the path of a method that answers an empty message with one, and emptyMessage that
// message as gRPC sends it.
const (
	method       = "/grpc.testing.TestService/EmptyCall"
	emptyMessage = "\x00\x00\x00\x00\x00"
)

// h2specServer has h2spec test our server's HTTP/2. A case fails if the server does not answer
// within a second.
func h2specServer(ctx context.Context, b *bench) (string, error) {
	report := filepath.Join(b.dir, "h2spec.xml")
	return b.withSubject(ctx, func(port string) (string, error) {
		out, err := b.output(ctx, b.dir, b.path(h2spec), "-h", "127.0.0.1", "-p", port, "-P", method, "-o", "1", "--max-header-length", "16000", "-j", report)
		p, readErr := os.ReadFile(report)
		if readErr != nil {
			return "", errors.Join(err, readErr)
		}
		r, err := readReport(p)
		if err != nil {
			return "", err
		}
		found := fmt.Sprintf("%d of %d", len(r.passed), r.cases())
		if err := r.judge(exceptions); err != nil {
			return found, fmt.Errorf("%w\n%s", err, out)
		}
		return found, nil
	})
}

// A specReport is what h2spec has found: names of cases, each with the section that it is of.
type specReport struct{ passed, failed, skipped []string }

// readReport reads a report in JUnit's format.
func readReport(p []byte) (*specReport, error) {
	var x struct {
		Suites []struct {
			Package string `xml:"package,attr"`
			Cases   []struct {
				Name    string    `xml:"classname,attr"`
				Error   *struct{} `xml:"error"`
				Failure *struct{} `xml:"failure"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	// It has bytes of the wire as they are.
	p = bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == utf8.RuneError {
			return ' '
		}
		return r
	}, p)
	if err := xml.Unmarshal(p, &x); err != nil {
		return nil, err
	}
	r := &specReport{}
	for _, s := range x.Suites {
		for _, c := range s.Cases {
			name := s.Package + ": " + c.Name
			switch {
			case c.Error != nil || c.Failure != nil:
				r.failed = append(r.failed, name)
			case c.Skipped != nil:
				r.skipped = append(r.skipped, name)
			default:
				r.passed = append(r.passed, name)
			}
		}
	}
	return r, nil
}

func (r *specReport) cases() int { return len(r.passed) + len(r.failed) + len(r.skipped) }

// judge is an error unless all cases have run, and all have passed but the exceptions.
func (r *specReport) judge(exceptions map[string]string) error {
	var errs []error
	if n := r.cases(); n != h2specCases {
		errs = append(errs, fmt.Errorf("%d cases, not %d", n, h2specCases))
	}
	if n := len(r.passed); n < h2specPasses {
		errs = append(errs, fmt.Errorf("%d cases have passed, and %d must", n, h2specPasses))
	}
	for _, name := range r.skipped {
		errs = append(errs, fmt.Errorf("skipped: %s", name))
	}
	for _, name := range r.failed {
		if _, ok := exceptions[name]; !ok {
			errs = append(errs, fmt.Errorf("failed: %s", name))
		}
	}
	return errors.Join(errs...)
}

// grpcHeaders are the headers of a request of gRPC's, for nghttp2's programs.
var grpcHeaders = []string{"-H", "content-type: application/grpc", "-H", "te: trailers"}

// nghttp makes calls with nghttp2's client: as a call of gRPC, with padding, with a header block
// in several frames, and as something else.
func nghttp(ctx context.Context, b *bench) (string, error) {
	message := filepath.Join(b.dir, "empty")
	if err := os.WriteFile(message, []byte(emptyMessage), 0o644); err != nil {
		return "", err
	}
	call := slices.Concat([]string{"-H", ":method: POST"}, grpcHeaders, []string{"-d", message})
	conversations := []struct {
		args []string
		want string // in what it receives
	}{
		{call, "grpc-status: 0"},
		{append([]string{"--padding=200"}, call...), "grpc-status: 0"},
		{append([]string{"--continuation", "--no-dep"}, call...), "grpc-status: 8"}, // with more than our metadata
		{append([]string{"--window-bits=1", "--connection-window-bits=20"}, call...), "grpc-status: 0"},
		{nil, ":status: 405"},
		{[]string{"-H", ":method: POST", "-d", message}, ":status: 415"},
	}
	return b.withSubject(ctx, func(port string) (string, error) {
		for _, c := range conversations {
			args := slices.Concat([]string{"-v"}, c.args, []string{"http://127.0.0.1:" + port + method})
			out, err := b.output(ctx, b.dir, "nghttp", args...)
			if err == nil {
				err = conversation(out, c.want)
			}
			if err != nil {
				return "", fmt.Errorf("nghttp %s: %w\n%s", strings.Join(args, " "), err, out)
			}
		}
		return fmt.Sprintf("%d conversations", len(conversations)), nil
	})
}

// protocolError is what nghttp prints of an error of the connection's or a stream's.
var protocolError = regexp.MustCompile(`(?i)recv RST_STREAM|error_code=[A-Z_]*\(0x0*[1-9a-f]|protocol error|Some requests were not processed`)

// conversation is an error if what nghttp prints has an error, or if it has not received want.
func conversation(out, want string) error {
	if bad := protocolError.FindString(out); bad != "" {
		return fmt.Errorf("there is %q", bad)
	}
	for line := range strings.Lines(out) {
		if _, received, ok := strings.Cut(line, "] recv "); ok && strings.Contains(received, want) {
			return nil
		}
	}
	return fmt.Errorf("there is no %q", want)
}

// succeeded is what h2load prints when all is well.
var succeeded = regexp.MustCompile(`requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx\n`)

// h2load makes many calls at once with nghttp2's load generator, small ones and ones of 16 KiB
// each way.
func h2load(ctx context.Context, b *bench) (string, error) {
	const large = 16 << 10
	// A SimpleRequest with a response_size, and a payload whose body is as large.
	body := "\x12" + varint(large) + strings.Repeat("x", large)
	request := "\x10" + varint(large) + "\x1a" + varint(len(body)) + body
	n := len(request)
	message := string([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + request
	loads := []struct {
		path, message, requests string
	}{
		{method, emptyMessage, "50000"},
		{"/grpc.testing.TestService/UnaryCall", message, "5000"},
	}
	return b.withSubject(ctx, func(port string) (string, error) {
		file := filepath.Join(b.dir, "message")
		for _, l := range loads {
			if err := os.WriteFile(file, []byte(l.message), 0o644); err != nil {
				return "", err
			}
			out, err := b.output(ctx, b.dir, "h2load",
				slices.Concat([]string{"-n", l.requests, "-c", "16", "-m", "32", "-d", file}, grpcHeaders, []string{"http://127.0.0.1:" + port + l.path})...)
			if err == nil {
				err = allSucceeded(out, l.requests)
			}
			if err != nil {
				return "", fmt.Errorf("%s: %w\n%s", l.path, err, out)
			}
		}
		return "55000 calls", nil
	})
}

// allSucceeded is an error unless h2load prints that each of n requests has.
func allSucceeded(out, n string) error {
	m := succeeded.FindStringSubmatch(out)
	if m == nil {
		return errors.New("not all requests have succeeded")
	}
	for _, got := range m[1:] {
		if got != n {
			return fmt.Errorf("%s requests, not %s", got, n)
		}
	}
	return nil
}

// varint is a number as protobuf writes it.
func varint(n int) string {
	var p []byte
	for ; n >= 0x80; n >>= 7 {
		p = append(p, byte(n)|0x80)
	}
	return string(append(p, byte(n)))
}
