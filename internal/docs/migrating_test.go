package docs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// What follows stands in docs/migrating-from.md, line for line.

type getRequest struct{ ID string }

type order struct {
	ID      string
	Version int32
}

func get(_ context.Context, r getRequest) (order, error) {
	if r.ID == "" {
		return order{}, &status.HandlerError{Code: status.InvalidArgument, Reason: "no id"}
	}
	return order{ID: r.ID}, nil
}

func watch(ctx context.Context, r getRequest, out *rpc.Sink[order]) error {
	for v := range int32(3) {
		if err := out.Send(ctx, order{ID: r.ID, Version: v}); err != nil {
			return err
		}
	}
	return nil
}

func syncOrder(ctx context.Context, b *rpc.Bidi[getRequest, order]) error {
	for r, err := range b.In.All(ctx) {
		if err != nil {
			return err
		}
		if err := b.Out.Send(ctx, order{ID: r.ID}); err != nil {
			return err
		}
	}
	return nil
}

func registerOrders(srv *kernel.Server) error {
	return errors.Join(
		rpc.HandleUnary(srv, "shop.Orders/Get", get, nil),
		rpc.HandleServerStream(srv, "shop.Orders/Watch", watch, nil),
		rpc.HandleBidi(srv, "shop.Orders/Sync", syncOrder, nil),
	)
}

func readOrder(ctx context.Context, c kernel.Caller, id string) (*order, error) {
	o, err := rpc.Call[order](ctx, c, "shop.Orders/Get", getRequest{id}, &rpc.CallOptions{CallOptions: kernel.CallOptions{
		Timeout:  time.Second,
		Metadata: metadata.MD{{Key: "user", Value: "ada"}},
	}})
	if code, _ := status.Of(err); code == status.NotFound {
		return nil, nil
	}
	return &o, err
}

func watchOrder(ctx context.Context, c kernel.Caller, id string, changed func(order)) error {
	s, err := rpc.CallServerStream[order](ctx, c, "shop.Orders/Watch", getRequest{id}, nil)
	if err != nil {
		return err
	}
	for o, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		changed(o)
	}
	return nil
}

func syncOrders(ctx context.Context, c kernel.Caller, ids []string, got func(order)) error {
	b, err := rpc.CallBidi[order, getRequest](ctx, c, "shop.Orders/Sync", nil)
	if err != nil {
		return err
	}
	go func() {
		for _, id := range ids {
			if b.Out.Send(ctx, getRequest{id}) != nil {
				return // All has the error
			}
		}
		_ = b.Out.CloseSend()
	}()
	for o, err := range b.In.All(ctx) {
		if err != nil {
			return err
		}
		got(o)
	}
	return nil
}

func logged(log *slog.Logger) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			err := next(ctx, s)
			code, _ := status.Of(err)
			log.Info("stream", "method", s.Method(), "code", code)
			return err
		}
	}
}

// brpc

func openToBrpc(ctx context.Context, addr string, request []byte) (*kernel.Client, *kernel.Stream, error) {
	client, err := kernel.Dial(ctx, "brpc://"+addr, &kernel.ClientOptions{
		Protocols: []frame.Protocol{strm.Protocol{}},
	})
	if err != nil {
		return nil, nil, err
	}
	s, err := client.Open(ctx, "example.EchoService/Echo", &kernel.OpenOptions{Request: pool.MessageOf(request)})
	if err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	_, _, err = s.Accepted(ctx) // the response of the RPC
	return client, s, err
}

func writeAll(ctx context.Context, s *kernel.Stream, values [][]byte) error {
	for _, v := range values {
		m := pool.Copy(v)
		err := s.TrySend(m) // StreamWrite
		if errors.Is(err, kernel.ErrWouldBlock) {
			err = s.Send(ctx, m) // StreamWait, and StreamWrite again
		}
		if err != nil {
			m.Release()
			return err
		}
	}
	return s.Close(ctx) // StreamClose, and wait for the peer's
}

func onReceived(s *kernel.Stream, handle func([]byte), idle func()) error {
	for {
		select {
		case b, ok := <-s.Batches(): // on_received_messages
			if !ok {
				return s.Err() // on_closed; not nil: on_failed
			}
			for i := range b.Len() {
				handle(b.At(i).Bytes())
			}
			b.Release()
		case <-s.Idle(): // on_idle_timeout, with StreamOptions.IdleTimeout
			idle()
		}
	}
}

// yamux and smux

func save(w io.Writer) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err // the upload was cut, and the file is not complete
			}
			if _, err := w.Write(m.Bytes()); err != nil {
				return &status.HandlerError{Code: status.ResourceExhausted, Reason: err.Error()}
			}
			m.Release()
		}
		return nil
	}
}

func upload(ctx context.Context, c *kernel.Client, r io.Reader) error {
	s, err := c.Open(ctx, "save", nil)
	if err != nil {
		return err
	}
	for last := false; !last; {
		m := pool.New(64 << 10)
		n, err := io.ReadFull(r, m.Bytes())
		last = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			s.Abort(status.Cancelled, "cannot read the file")
			return err
		}
		m.Truncate(n)
		if err := s.Send(ctx, m); err != nil {
			m.Release()
			break // Receive says why
		}
	}
	_ = s.CloseSend()
	if _, err := s.Receive(ctx); !errors.Is(err, io.EOF) {
		return err // the handler's
	}
	return nil // the handler has returned nil: all is written
}

// WebSocket

func echo(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func ask(ctx context.Context, c *kernel.Client, text string) (string, error) {
	s, err := c.Open(ctx, "echo", nil)
	if err != nil {
		return "", err
	}
	defer s.Close(ctx)
	if err := s.Send(ctx, pool.MessageOf([]byte(text))); err != nil {
		return "", err
	}
	m, err := s.Receive(ctx)
	return string(m.Bytes()), err
}

// The tests.

const migratingPage = "docs/migrating-from.md"

// Every piece of Go on the page compiles: here, or in the benchmarks' module, which has the
// other libraries.
func TestMigratingFromCompiles(t *testing.T) {
	sources := []string{readPage(t, "internal/docs/migrating_test.go")}
	theirs, err := filepath.Glob(filepath.Join(root, "benchmarks/migrating/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range theirs {
		sources = append(sources, readPage(t, filepath.Join("benchmarks/migrating", filepath.Base(name))))
	}
	ours := 0
	for _, m := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readPage(t, migratingPage), -1) {
		if i := slices.IndexFunc(sources, func(s string) bool { return strings.Contains(s, "\n"+m[1]) }); i < 0 {
			t.Errorf("compiled nowhere:\n%s", m[1])
		} else if i == 0 {
			ours++
		}
	}
	if ours < 8 || len(sources) < 3 {
		t.Errorf("%d pieces of ours, %d files", ours, len(sources))
	}
}

func TestMigratingFromGRPC(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, nil)
	var log testkit.Journal
	srv.Use(logged(log.Logger()))
	if err := registerOrders(srv); err != nil {
		t.Fatal(err)
	}
	o, err := readOrder(t.Context(), client, "7")
	if err != nil || *o != (order{ID: "7"}) {
		t.Errorf("%v %v", o, err)
	}
	if _, err := readOrder(t.Context(), client, ""); !errors.Is(err, &status.StreamError{Code: status.InvalidArgument}) {
		t.Error(err)
	}
	for _, want := range []string{"code=INVALID_ARGUMENT", "method=shop.Orders/Get code=OK"} { // behind the reply, which the handler has sent
		testkit.Eventually(t, want, func() bool { return strings.Contains(log.String(), want) }, log.String)
	}
	var got []order
	add := func(o order) { got = append(got, o) }
	if err := watchOrder(t.Context(), client, "7", add); err != nil || len(got) != 3 || got[2].Version != 2 {
		t.Errorf("%v %v", got, err)
	}
	got = nil
	if err := syncOrders(t.Context(), client, []string{"a", "b"}, add); err != nil || len(got) != 2 || got[1].ID != "b" {
		t.Errorf("%v %v", got, err)
	}
}

func TestMigratingFromBrpc(t *testing.T) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: []frame.Protocol{strm.Protocol{}}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := kernel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	srv.HandleOffer("example.EchoService/Echo", func(ctx context.Context, o *kernel.Offer) error {
		request, err := o.Request(ctx)
		if err != nil {
			return err
		}
		s, err := o.Accept(request, nil)
		if err != nil {
			return err
		}
		return s.Close(ctx)
	})
	client, s, err := openToBrpc(t.Context(), ln.Addr().String(), []byte("request"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_ = client.Close()
	_ = srv.Close()
	if err := <-served; !errors.Is(err, kernel.ErrServerClosed) {
		t.Error(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a, b := kerneltest.Pipe(t, kernel.StreamOptions{}, kernel.StreamOptions{IdleTimeout: time.Second})
		idle := make(chan struct{}, 1)
		var got []string
		over := make(chan error, 1)
		go func() {
			over <- onReceived(b, func(p []byte) { got = append(got, string(p)) }, func() { idle <- struct{}{} })
			_ = b.Close(t.Context())
		}()
		<-idle
		large := strings.Repeat("x", 1<<20)
		if err := writeAll(t.Context(), a, [][]byte{[]byte("one"), []byte(large), []byte(large), []byte("last")}); err != nil {
			t.Error(err)
		}
		if err := <-over; err != nil || len(got) != 4 || got[3] != "last" {
			t.Errorf("%d messages, %v", len(got), err)
		}
	})
}

// A fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestMigratingFromYamux(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, nil)
	var file strings.Builder
	srv.Handle("save", save(&file))
	text := strings.Repeat("0123456789abcdef", 20_000)
	if err := upload(t.Context(), client, strings.NewReader(text)); err != nil || file.String() != text {
		t.Errorf("%d bytes of %d, %v", file.Len(), len(text), err)
	}
	srv.Remove("save")
	srv.Handle("save", save(fullDisk{}))
	for _, text := range []string{text, "short"} {
		err := upload(t.Context(), client, strings.NewReader(text))
		if !errors.Is(err, &status.StreamError{Code: status.ResourceExhausted}) {
			t.Errorf("the upload of %d bytes to a full disk: %v", len(text), err)
		}
	}
}

func TestMigratingFromWebSocket(t *testing.T) {
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Handle("echo", echo)
	if text, err := ask(t.Context(), client, "hello"); text != "hello" || err != nil {
		t.Errorf("%q %v", text, err)
	}
}

// The numbers of the page's tables are the code's.
func TestMigratingFromHasTheNumbers(t *testing.T) {
	page := strings.Join(strings.Fields(readPage(t, migratingPage)), " ")
	l := constants(t, "kernel/clientopen.go")
	for _, want := range []string{
		fmt.Sprintf("calls that were not processed, %d times in all", l["callTries"]),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("not on the page: %s", want)
		}
	}
}
