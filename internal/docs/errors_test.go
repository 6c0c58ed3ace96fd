package docs

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

const errorsPage = "docs/errors.md"

// declared finds the exported names of a kind in docs/api, which a test of its own compares
// with the code.
func declared(t *testing.T, pattern string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs/api/*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		base := filepath.Base(file)
		text := readPage(t, filepath.Join("docs/api", base))
		pkg := base[strings.LastIndexByte(base, '_')+1 : len(base)-len(".txt")]
		for _, m := range regexp.MustCompile(`(?m)^`+pattern).FindAllStringSubmatch(text, -1) {
			names = append(names, pkg+"."+m[1])
		}
	}
	return names
}

// sentinels are all of them.
var sentinels = map[string]error{
	"kernel.ErrAnswered": kernel.ErrAnswered, "kernel.ErrChannelInUse": kernel.ErrChannelInUse, "kernel.ErrClosed": kernel.ErrClosed,
	"kernel.ErrGoingAway": kernel.ErrGoingAway, "kernel.ErrHeaderSent": kernel.ErrHeaderSent, "kernel.ErrLimits": kernel.ErrLimits,
	"kernel.ErrMetadataKey": kernel.ErrMetadataKey, "kernel.ErrMetadataTooLarge": kernel.ErrMetadataTooLarge,
	"kernel.ErrNoReply": kernel.ErrNoReply, "kernel.ErrNoRoom": kernel.ErrNoRoom, "kernel.ErrNotAccepted": kernel.ErrNotAccepted,
	"kernel.ErrNotReadable": kernel.ErrNotReadable, "kernel.ErrNotSupported": kernel.ErrNotSupported, "kernel.ErrRefused": kernel.ErrRefused,
	"kernel.ErrSendClosed": kernel.ErrSendClosed, "kernel.ErrServerClosed": kernel.ErrServerClosed, "kernel.ErrSlotUsed": kernel.ErrSlotUsed,
	"kernel.ErrStopped": kernel.ErrStopped, "kernel.ErrTooLarge": kernel.ErrTooLarge, "kernel.ErrTooManyStreams": kernel.ErrTooManyStreams,
	"kernel.ErrWouldBlock":   kernel.ErrWouldBlock,
	"status.ErrDisconnected": status.ErrDisconnected,
	"status.ErrRefused":      status.ErrRefused,
	"rpc.ErrEncoding":        rpc.ErrEncoding, "rpc.ErrSinkForeign": rpc.ErrSinkForeign, "rpc.ErrSinkUnused": rpc.ErrSinkUnused,
	"rpc.ErrSinkUsed":  rpc.ErrSinkUsed,
	"codec.ErrNoCodec": codec.ErrNoCodec, "codec.ErrNotAppended": codec.ErrNotAppended,
}

// The page has every sentinel, with its text.
func TestErrorsPageHasTheSentinels(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range tables(t, readPage(t, errorsPage), "sentinels") {
		name, text := spans(row[0])[0], spans(row[1])[0]
		if err := sentinels[name]; err == nil || err.Error() != text {
			t.Errorf("%s is %q on the page, and reads %v", name, text, err)
		}
		seen[name] = true
		if len(row) != 4 || row[2] == "" || row[3] == "" {
			t.Errorf("%s: %d cells, or an empty one", name, len(row))
		}
	}
	for _, name := range declared(t, `var (Err\w+) error$`) {
		if !seen[name] {
			t.Errorf("%s is not on the page", name)
		}
		if sentinels[name] == nil {
			t.Errorf("%s is not in the test's table", name)
		}
	}
}

// The page has every code, with its number and name.
func TestErrorsPageHasTheCodes(t *testing.T) {
	page := map[string]string{}
	for _, row := range tables(t, readPage(t, errorsPage), "codes") {
		n, err := strconv.Atoi(row[1])
		if err != nil || row[2] != status.Code(n).String() {
			t.Errorf("%v: the code prints as %v", row, status.Code(n))
		}
		page[spans(row[0])[0]] = row[1]
	}
	names := slices.DeleteFunc(declared(t, `const (\w+ Code = \d+)$`), func(d string) bool {
		return strings.HasPrefix(d, "status.FirstAppCode ") // which is a bound
	})
	if len(names) != len(page) {
		t.Errorf("%d codes are on the page, there are %d", len(page), len(names))
	}
	for _, d := range names {
		name, rest, _ := strings.Cut(d, " ")
		if number := rest[strings.LastIndexByte(rest, ' ')+1:]; page[name] != number {
			t.Errorf("%s is %s, on the page %q", name, number, page[name])
		}
	}
}

// The page's texts of typed errors are those of programs that do what the page says.
func TestErrorsPageHasWhatIsPrinted(t *testing.T) {
	rows := tables(t, readPage(t, errorsPage), "built")
	page := map[string]bool{}
	for _, row := range rows {
		for _, text := range spans(row[0]) {
			page[text] = true
		}
	}
	built := map[string]bool{}
	for _, build := range []func(t *testing.T) []error{handlersErrors, contextErrors, closingErrors, handshakeErrors, localErrors, decodeErrors} {
		synctest.Test(t, func(t *testing.T) {
			for _, err := range build(t) {
				if err == nil {
					t.Error("no error")
					continue
				}
				built[err.Error()] = true
				if !page[err.Error()] {
					t.Errorf("not on the page: %s", err)
				}
			}
		})
	}
	for _, row := range rows { // a row has one text, or those of several orders of events
		if !slices.ContainsFunc(spans(row[0]), func(text string) bool { return built[text] }) {
			t.Errorf("no program of this test prints %s", row[0])
		}
	}
}

var quiet = slog.New(slog.DiscardHandler)

// errorOf returns the error of a call.
func errorOf(_ pool.Message, err error) error { return err }

func holds(srv *kernel.Server) {
	srv.Handle("slow", func(_ context.Context, s *kernel.Stream) error {
		s.In() // accepts
		<-s.Context().Done()
		return nil
	})
}

func handlersErrors(t *testing.T) (errs []error) {
	handlers := map[string]kernel.Handler{
		"fails":  func(context.Context, *kernel.Stream) error { return noSuchOrder },
		"plain":  func(context.Context, *kernel.Stream) error { return errors.New("disk full") },
		"panics": func(context.Context, *kernel.Stream) error { panic("a bug") },
	}
	for _, method := range append(slices.Sorted(maps.Keys(handlers)), "none") {
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Logger: quiet}, nil)
		for name, h := range handlers {
			srv.Handle(name, func(ctx context.Context, s *kernel.Stream) error {
				s.In() // accepts
				return h(ctx, s)
			})
		}
		errs = append(errs, errorOf(client.Call(t.Context(), method, pool.Message{}, nil)))
	}
	return append(errs, noSuchOrder)
}

var noSuchOrder = &status.HandlerError{Code: status.NotFound, Reason: "no such order"}

func contextErrors(t *testing.T) (errs []error) {
	for _, end := range []func(context.Context) (context.Context, context.CancelFunc){
		func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		},
		func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		},
	} {
		srv, client := kerneltest.Start(t, nil, nil)
		holds(srv)
		ctx, cancel := end(t.Context())
		errs = append(errs, errorOf(client.Call(ctx, "slow", pool.Message{}, nil)))
		cancel()
	}
	srv, client := kerneltest.Start(t, nil, nil)
	holds(srv)
	s, err := client.Open(t.Context(), "slow", &kernel.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = s.Receive(ctx)
	errs = append(errs, err)
	for err = nil; err == nil; {
		err = s.Send(ctx, pool.New(1<<10))
	}
	return append(errs, err)
}

// A cut connection ends without a word.
type cut struct {
	net.Conn
	off atomic.Bool
}

func (c *cut) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.off.Load() {
		return 0, io.EOF
	}
	return n, err
}

func closingErrors(t *testing.T) (errs []error) {
	var wire *cut
	for _, end := range []func(srv *kernel.Server, client *kernel.Client){
		func(srv *kernel.Server, _ *kernel.Client) { _ = srv.Close() },
		func(srv *kernel.Server, _ *kernel.Client) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_ = srv.Shutdown(ctx)
		},
		func(_ *kernel.Server, client *kernel.Client) { _ = client.Close() },
		func(srv *kernel.Server, _ *kernel.Client) { wire.off.Store(true); _ = srv.Close() },
	} {
		srv, err := kernel.NewServer(&kernel.ServerOptions{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		holds(srv)
		ln := kerneltest.Listen()
		go func() { _ = srv.Serve(t.Context(), ln) }()
		client, err := kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := ln.Dial(ctx, network, addr)
				wire = &cut{Conn: c}
				return wire, err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		s, err := client.Open(t.Context(), "slow", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Accepted(t.Context()); err != nil {
			t.Fatal(err)
		}
		end(srv, client)
		<-s.Done()
		errs = append(errs, s.Err())
		_ = client.Close()
		_ = srv.Close()
	}
	return errs
}

func handshakeErrors(t *testing.T) (errs []error) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Logger:       quiet,
		Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) { return nil, errors.New("no") },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	ln := kerneltest.Listen()
	go func() { _ = srv.Serve(t.Context(), ln) }()
	other := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Read(make([]byte, 1024))
			_, _ = io.WriteString(theirs, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = theirs.Close()
		}()
		return ours, nil
	}
	for _, dial := range []func(context.Context, string, string) (net.Conn, error){ln.Dial, other} {
		_, err := kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{Dial: dial})
		errs = append(errs, err)
	}
	return errs
}

func localErrors(t *testing.T) (errs []error) {
	srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}, nil)
	holds(srv)
	c, err := client.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), "slow", nil); err != nil {
		t.Fatal(err)
	}
	_, err = c.Open(t.Context(), "slow", nil)
	errs = append(errs, err)
	_ = client.Close()
	_, err = client.Open(t.Context(), "slow", nil)
	return append(errs, err)
}

type panicking struct{}

func (panicking) Append(b []byte, _ int) ([]byte, error) { return b, nil }
func (panicking) Decode([]byte) (int, error)             { panic("a bug") }

func decodeErrors(t *testing.T) (errs []error) {
	a, b := kerneltest.Pipe(t, kernel.StreamOptions{}, kernel.StreamOptions{})
	fixed, err := codec.CodecOf[int32](codec.Fixed)
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := rpc.SourceOf(b, fixed)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"1234", "12"} {
		if err := a.Send(t.Context(), pool.MessageOf([]byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	_, err = numbers.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = numbers.Receive(t.Context())
	var wrong *codec.DecodeError
	if !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	wrong.Method = "numbers"
	var v int
	var broken *codec.PanicError
	if !errors.As(codec.NewMarshaler(panicking{}).Unmarshal(pool.Message{}, &v), &broken) {
		t.Fatal("the codec did not panic")
	}
	return append(errs, wrong, broken)
}

// sources are the packages whose texts a user can meet.
var sources = []string{"kernel", "status", "actor", "conn", "rpc", "rpc/codec", "rpc/protocodec", "frame", "frame/native"}

// elsewhere are texts that are no errors', or a part of one that stands on the page as a whole.
var elsewhere = []string{
	"stream credit", "connection credit", // BlockedOn; and a setting of the handshake
	"half-closed (local)", "half-closed (remote)", // StreamInfo.State
	"sluice: handler panicked", "sluice: hook panicked", "sluice: hook returned nonsense", "the context", "sluice: handshake failed", "sluice: connection ended", // docs/operations.md has the log
	"sluice: a handler error's details can't be sent", "sluice: a refusal's header and trailer can't be sent", "sluice: observer is too slow", "sluice: a handler's result can't be sent",
	"another size", // is never shown
	"sluice: no protocol of the server can say the method's name", "sluice: codec panicked", "sluice: a middleware has used the stream of a call",
	"the handler", "the caller", // parts of ErrEncoding's
	"largest fragment", "largest message", "initial credit", // settings of the handshake
	"unexpected end of JSON input",                                                                                                       // is compared with
	"sluice: write would block", "the stream was reset for what the peer sent", "a compressed message on a protocol without compression", // never leave the library
	"ended by peer", " (not processed)", "by peer: ", // stand in the texts above
}

// Every text of the sources stands on the page, and every text of the page in the sources.
func TestErrorsPageHasTheTexts(t *testing.T) {
	page := readPage(t, errorsPage)
	all := map[string]bool{}
	for _, s := range spans(page) {
		all[s] = true
	}
	code := literals(t)
	for text, at := range code {
		if !slices.Contains(elsewhere, text) && !slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(s string) bool { return strings.Contains(s, plain(text)) }) {
			t.Errorf("%s: %q, as `%s`, is not on the page", at, text, plain(text))
		}
	}
	for _, text := range elsewhere {
		if code[text] == "" {
			t.Errorf("elsewhere: %q is no text any more", text)
		}
	}
	for _, row := range tables(t, page, "texts") {
		texts := spans(row[0])
		if len(texts) == 0 { // broken rules, by code
			texts = spans(row[1])
		}
		for _, s := range texts {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(code)), func(text string) bool { return full(text) && whole(s, plain(text)) }) {
				t.Errorf("`%s` is no text of the sources", s)
			}
		}
	}
}

// whole reports whether the text of the page is that of the code, with what an error around
// it says before, or a cause behind.
func whole(page, code string) bool {
	return page == code || strings.HasSuffix(page, ": "+code) || page == code+"…" || page == code+": …" || strings.HasPrefix(page, code+"…")
}

// full reports whether a text says anything.
func full(text string) bool { return strings.Trim(plain(text), "…:, ") != "" }

var verb = regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]`)

// plain is a text of the code as the page has it: with … for what is filled in, and without
// what an error of its own stands for in front.
func plain(text string) string {
	text = strings.ReplaceAll(verb.ReplaceAllString(text, "…"), "\n", " ")
	return strings.TrimPrefix(text, "…: ")
}

// literals finds the strings of the sources with a space in them, and where they are.
func literals(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range sources {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				text, err := strconv.Unquote(lit.Value)
				if err == nil && strings.Contains(text, " ") && full(text) {
					found[text] = fmt.Sprint(fset.Position(lit.Pos()))
				}
				return true
			})
		}
	}
	return found
}
