package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

type demoFlags struct {
	size    byteCount
	streams int
	seed    uint64
}

func (f *demoFlags) register(fs *flag.FlagSet) {
	f.size = 256 << 20
	fs.Var(&f.size, "size", "`SIZE` of the generated data, without a FILE")
	fs.IntVar(&f.streams, "streams", 4, "streams that share the data")
	fs.Uint64Var(&f.seed, "seed", 1, "seed of the messages' sizes and of generated data")
}

// demo runs a server and a client. It sends the data over several streams at once, with a
// ping-pong on a further stream.
func demo(c *command, args []string, std stdio) error {
	var f demoFlags
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.register(fs)
	files, err := c.parse(fs, args, 1, std)
	if err != nil {
		return err
	}
	if f.streams < 1 || f.streams > 500 {
		return usagef("-streams must be 1 to 500")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	d := &demonstration{streams: f.streams, src: generated(f.seed), total: int64(f.size), seed: f.seed}
	if len(files) == 1 {
		file, length, err := openFile(files[0])
		if err != nil {
			return err
		}
		defer file.Close()
		d.src, d.total = file, length
	}
	if err := d.run(ctx, std); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	return d.report(std.out)
}

// A demonstration is one run.
type demonstration struct {
	src     io.ReaderAt
	total   int64 // bytes to send
	streams int
	seed    uint64

	counts
	start time.Time
	took  time.Duration
	pings pings
}

func (d *demonstration) run(ctx context.Context, std stdio) error {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Logger: warnings(std.err)})
	if err != nil {
		return err
	}
	if err := handle(srv); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()

	err = d.runClient(ctx, ln.Addr().String(), std)

	// The client has closed, so there is nothing to drain: this only waits until the
	// server has noticed.
	if cerr := srv.Close(); err == nil {
		err = cerr
	}
	if serr := <-served; err == nil && !errors.Is(serr, kernel.ErrServerClosed) {
		err = serr
	}
	return err
}

// warnings logs warnings and errors only.
func warnings(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// runClient is the client's side.
func (d *demonstration) runClient(ctx context.Context, addr string, std stdio) error {
	client, err := kernel.Dial(ctx, addr, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	fmt.Fprintf(std.out, "%s echoed on %d streams beside a ping-pong, one connection to %s\n",
		inBytes(d.total), d.streams, addr)

	// Two groups: the ping-pong goes on until the bulk has come back. If either fails,
	// both end.
	all := newGroup(ctx)
	bulk := newGroup(all.ctx)
	over := make(chan struct{})
	d.start = time.Now()
	progress := startProgress(d, std.err)
	all.run(func() error { return d.pingPong(all.ctx, client, over) })
	own := &wires()[0]
	for i := range d.streams {
		s, err := client.Open(bulk.ctx, methodEcho, nil)
		if err != nil {
			bulk.cancel(err)
			break
		}
		off, n := share(d.total, i, d.streams)
		bulk.exchange(own, s, part{d.src, mixed(off, n, d.seed)}, &d.counts)
	}
	all.run(func() error {
		defer close(over)
		defer func() { d.took = time.Since(d.start) }()
		return bulk.wait()
	})
	err = all.wait()
	progress.stop()
	return err
}

// pingEvery paces the ping-pong, so that its latency shows the effect of the streams
// beside it and not of itself.
const (
	pingEvery = time.Millisecond
	pingSize  = 64
)

// pingPong sends a message, waits for it, and does it again, all with channels.
func (d *demonstration) pingPong(ctx context.Context, client *kernel.Client, over <-chan struct{}) error {
	s, err := client.Open(ctx, methodSelect, nil)
	if err != nil {
		return err
	}
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		if err := d.ping(s, n); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-over:
			close(s.Out()) // the same as CloseSend, for its only sender
			if _, ok := <-s.In(); ok {
				return errors.New("ping-pong: an answer too many")
			}
			return s.Err()
		}
	}
}

func (d *demonstration) ping(s *kernel.Stream, n uint64) error {
	payload := make([]byte, pingSize)
	binary.LittleEndian.PutUint64(payload, n)
	sent := time.Now()
	// Nothing receives from Out once the stream has ended, so every send to it needs
	// another case.
	select {
	case s.Out() <- pool.Copy(payload):
	case <-s.SendDone():
		return fmt.Errorf("ping %d: %w", n, why(s, kernel.ErrSendClosed))
	}
	m, ok := <-s.In()
	if !ok {
		return fmt.Errorf("ping %d: %w", n, why(s, io.ErrUnexpectedEOF))
	}
	d.pings.add(time.Since(sent))
	if !bytes.Equal(m.Bytes(), payload) {
		return fmt.Errorf("ping %d: another message came back", n)
	}
	m.Release()
	return nil
}

// pings is how long each ping took.
type pings struct {
	mu   sync.Mutex
	took []time.Duration
}

func (p *pings) add(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = append(p.took, d)
}

func (p *pings) last() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.took) == 0 {
		return 0
	}
	return p.took[len(p.took)-1]
}

// quantile is the shortest time that the part q of all pings did not exceed.
func (p *pings) quantile(q float64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(p.took))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (d *demonstration) report(w io.Writer) error {
	_, err := fmt.Fprintf(w, `all of it came back intact
  messages  %s of 1 B to %s
  bytes     %s
  rate      %.1f MB/s each way, for %.2f s
  ping      p50 %v, p99 %v (%s pings of %d B)
  stalls    %s sends waited for credit
`, grouped(d.messages.Load()), inBytes(maxMixed), grouped(d.bytes.Load()),
		float64(d.bytes.Load())/1e6/d.took.Seconds(), d.took.Seconds(),
		micros(d.pings.quantile(0.50)), micros(d.pings.quantile(0.99)), grouped(int64(len(d.pings.took))), pingSize,
		grouped(d.stalls.Load()))
	return err
}

func micros(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
