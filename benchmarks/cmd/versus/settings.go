package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/all"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// settings are the command's flags.
type settings struct {
	peers     []peer.Peer
	workloads []workload.Workload

	Args       []string      `json:"args"`
	Rounds     int           `json:"rounds"`
	Time       time.Duration `json:"time"`
	Warmup     time.Duration `json:"warmup"`
	Messages   int64         `json:"messages,omitzero"`
	Limit      time.Duration `json:"limit"`
	Cap        int           `json:"cap,omitzero"`
	Checksum   bool          `json:"checksum"`
	TLS        bool          `json:"tls,omitzero"`
	GOMAXPROCS int           `json:"gomaxprocs,omitzero"`

	jsonFile, mdFile, profiles string
}

var (
	errHelp     = errors.New("help was asked for")
	errReported = errors.New("the flag package has printed the error")
)

func parse(args []string, out io.Writer) (*settings, error) {
	s := &settings{Args: args}
	fs := flag.NewFlagSet("versus", flag.ContinueOnError)
	fs.SetOutput(out)
	peers := fs.String("peers", "all", "peers, separated by commas: "+strings.Join(all.Names(), ", "))
	loads := fs.String("workloads", "all", "workloads, separated by commas; w3 stands for w3-64 and w3-1k: "+workloadNames())
	fs.IntVar(&s.Rounds, "rounds", 5, "how often each peer runs each workload")
	fs.DurationVar(&s.Time, "time", 500*time.Millisecond, "how long to measure")
	fs.DurationVar(&s.Warmup, "warmup", 200*time.Millisecond, "how long to run before")
	fs.Int64Var(&s.Messages, "messages", 0, "measure at least this many messages instead of -time")
	fs.DurationVar(&s.Limit, "limit", time.Minute, "how long a run may take beside -time and -warmup")
	fs.IntVar(&s.Cap, "cap", 0, "at most this many streams and connections, for a quick check; 0 is no cap")
	fs.BoolVar(&s.Checksum, "checksum", false, "checksums in transports where they are optional")
	fs.BoolVar(&s.TLS, "tls", false, "TLS; for raw, and peers of sluice and grpc")
	fs.IntVar(&s.GOMAXPROCS, "gomaxprocs", 0, "GOMAXPROCS of both processes; 0 leaves it alone")
	fs.StringVar(&s.jsonFile, "json", "", "write every run's figures to this `file`")
	fs.StringVar(&s.mdFile, "md", "", "write the tables to this `file` too")
	fs.StringVar(&s.profiles, "profiles", "", "write CPU profiles of both processes into this `directory`")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, errHelp
		}
		return nil, errReported
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if err := s.choose(*peers, *loads); err != nil {
		return nil, err
	}
	return s, s.check()
}

func workloadNames() string {
	var names []string
	for _, w := range workload.All() {
		names = append(names, w.Name)
	}
	return strings.Join(names, ", ")
}

func (s *settings) choose(peers, loads string) error {
	s.peers, s.workloads = all.Peers(), workload.All()
	if peers != "all" {
		s.peers = nil
		for name := range strings.SplitSeq(peers, ",") {
			p, err := all.Find(name)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(s.peers, func(q peer.Peer) bool { return q.Name() == p.Name() }) {
				return fmt.Errorf("-peers names %s twice", p.Name())
			}
			s.peers = append(s.peers, p)
		}
	}
	if loads != "all" {
		s.workloads = nil
		for name := range strings.SplitSeq(loads, ",") {
			found, err := workload.Find(name)
			if err != nil {
				return err
			}
			for _, w := range found {
				if slices.ContainsFunc(s.workloads, func(v workload.Workload) bool { return v.Name == w.Name }) {
					return fmt.Errorf("-workloads names %s twice", w.Name)
				}
				s.workloads = append(s.workloads, w)
			}
		}
	}
	return nil
}

func (s *settings) check() error {
	if i := slices.IndexFunc(s.peers, func(p peer.Peer) bool { return !peer.CanTLS(p) }); s.TLS && i >= 0 {
		return fmt.Errorf("%s has no TLS here", s.peers[i].Name())
	}
	switch {
	case s.Rounds < 1:
		return errors.New("-rounds must be at least 1")
	case s.Time <= 0 && s.Messages == 0:
		return errors.New("-time must be positive")
	case s.Warmup < 0 || s.Messages < 0 || s.Cap < 0 || s.GOMAXPROCS < 0:
		return errors.New("-warmup, -messages, -cap and -gomaxprocs can't be negative")
	case s.Limit <= 0:
		return errors.New("-limit must be positive")
	}
	return nil
}
