package attacks

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// withTLS is the environment variable that has the server speak TLS.
const withTLS = "SLUICE_ATTACK_TLS"

// noBudget is the environment variable that has the server count no memory, and take so many
// streams.
const noBudget = "SLUICE_ATTACK_STREAMS"

// serve is the server's process. It prints its address and, for each line that it reads, its
// figures; it ends with its input.
func serve() {
	var secure *tls.Config
	if os.Getenv(withTLS) != "" {
		cert, _ := testkit.Certificate("localhost", nil, nil)
		secure = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	var limits kernel.Limits
	if n, err := strconv.Atoi(os.Getenv(noBudget)); err == nil {
		limits = kernel.Limits{Memory: kernel.Unlimited, MaxTotalStreams: n}
	}
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Limits:    limits,
		TLS:       secure,
		Protocols: []frame.Protocol{native.Protocol{}, strm.Protocol{}, &seastar.Protocol{}, triple.Protocol{}},
		Logger:    slog.New(slog.DiscardHandler),
	})
	must(err)
	srv.Handle("echo", testkit.Echo)
	srv.Handle("stuck", func(ctx context.Context, _ *kernel.Stream) error {
		<-ctx.Done()
		return nil
	})
	srv.Handle("deaf", func(ctx context.Context, s *kernel.Stream) error { // accepts, and does not read
		_ = s.Send(ctx, testkit.Sized(1, 'a'))
		<-ctx.Done()
		return nil
	})
	srv.Handle("lent", func(ctx context.Context, s *kernel.Stream) error { // reads the first messages
		_ = s.SendCopy(ctx, []byte("a"))
		_, _ = s.ReceiveBatch(ctx)
		<-ctx.Done()
		return nil
	})
	srv.Handle("copies", func(ctx context.Context, s *kernel.Stream) error {
		p := make([]byte, 300)
		for {
			if err := s.SendCopy(ctx, p); err != nil {
				return err
			}
		}
	})
	for name, size := range map[string]int{"sender": 10_000, "small": 10, "large": 1 << 20} {
		srv.Handle(name, func(ctx context.Context, s *kernel.Stream) error {
			for {
				m := testkit.Sized(size, 's')
				if err := s.Send(ctx, m); err != nil {
					m.Release()
					return err
				}
			}
		})
	}
	srv.HandleOffer("open", func(ctx context.Context, o *kernel.Offer) error {
		_, err := o.Accept(pool.Message{}, nil)
		return err
	})
	srv.Handle("in", func(ctx context.Context, s *kernel.Stream) error { // does not read its channel
		_ = s.In()
		<-ctx.Done()
		return nil
	})
	srv.Handle("kept", func(ctx context.Context, s *kernel.Stream) error { // stays when its stream has ended
		_ = s.Send(ctx, testkit.Sized(1, 'a'))
		select {}
	})
	srv.Handle(kernel.Verb(0), func(ctx context.Context, s *kernel.Stream) error {
		for {
			m := testkit.Sized(10_000, 's')
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				return err
			}
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(ln.Addr())
	go func() { must(srv.Serve(context.Background(), ln)) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "held" {
			account, real := held(srv)
			fmt.Println(account, real)
			continue
		}
		st := srv.Stats()
		var own, queued, unread, handlers int
		for _, c := range srv.Conns() {
			i := c.Snapshot()
			own, queued, unread, handlers = own+i.Own, queued+i.Queued, unread+i.Unread, handlers+i.Handlers
		}
		fmt.Printf("%d connections, %d streams, %d handlers, %d evicted; %d MiB counted: %d queued, %d unread, %d own\n",
			st.Conns, st.Streams, handlers, st.Evicted, st.Memory>>20, queued>>20, unread>>20, own>>20)
	}
	os.Exit(0)
}

// held is what the server counts, and what the process holds, in bytes.
func held(srv *kernel.Server) (account, real int) {
	var m runtime.MemStats
	for range 3 { // what pools keep is given up at the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return srv.Stats().Memory, int(m.HeapAlloc + m.StackInuse)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// untilEnd waits for the end of the input: then the test is over.
func untilEnd() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

const second = time.Second
