package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// killAfter is how much longer than its own limit a client's process may run, to report
// its error.
const killAfter = 10 * time.Second

// runAll runs every workload, its peers in turn within each round.
func runAll(ctx context.Context, s *settings, rep *report) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if s.profiles != "" {
		if err := os.MkdirAll(s.profiles, 0o755); err != nil {
			return err
		}
	}
	for _, w := range s.workloads {
		for round := range s.Rounds {
			for _, p := range s.peers {
				if ctx.Err() != nil {
					return nil
				}
				if w.RTT > 0 && !peer.OverTCP(p) {
					continue // the path is a relay of TCP's
				}
				o := runPair(ctx, exe, s, w, p)
				if ctx.Err() != nil {
					return nil // the run was cut short
				}
				rep.add(w, p, round, o)
				printOutcome(w, p, round, s.Rounds, o)
			}
		}
	}
	return nil
}

func printOutcome(w workload.Workload, p peer.Peer, round, rounds int, o outcome) {
	text, _, _ := strings.Cut(o.Error, "\n")
	if o.Result != nil {
		text = fmt.Sprintf("%s/s, %.3g GB/s, %s us CPU", si(o.Result.Rate()), o.Result.GBps(), digits(o.Result.CPU()))
	}
	fmt.Fprintf(os.Stderr, "%s %d/%d %-9s %s\n", w.Name, round+1, rounds, p.Name(), text)
}

func (s *settings) taskArgs(verb string, w workload.Workload, p peer.Peer) []string {
	args := []string{
		verb, "-peer", p.Name(), "-workload", w.Name,
		"-time", s.Time.String(), "-warmup", s.Warmup.String(),
		"-messages", strconv.FormatInt(s.Messages, 10), "-limit", (s.Limit + s.Time + s.Warmup).String(),
		"-cap", strconv.Itoa(s.Cap), "-checksum=" + strconv.FormatBool(s.Checksum),
		"-tls=" + strconv.FormatBool(s.TLS),
	}
	if s.profiles != "" {
		name := fmt.Sprintf("%s-%s-%s.pprof", w.Name, strings.ReplaceAll(p.Name(), "/", "_"), verb)
		args = append(args, "-profile", filepath.Join(s.profiles, name))
	}
	return args
}

// A pair is the two processes of a run, with a pipe each way between them.
type pair struct {
	server, client       *exec.Cmd
	serverErr, clientErr bytes.Buffer
	out                  bytes.Buffer
	ours                 []*os.File // pipe ends that only the children need
}

func runPair(ctx context.Context, exe string, s *settings, w workload.Workload, p peer.Peer) outcome {
	ctx, cancel := context.WithTimeout(ctx, s.Limit+s.Time+s.Warmup+killAfter)
	defer cancel()
	pr, err := newPair(ctx, exe, s, w, p)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	return pr.run()
}

func newPair(ctx context.Context, exe string, s *settings, w workload.Workload, p peer.Peer) (*pair, error) {
	answersR, answersW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	commandsR, commandsW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, answersR.Close(), answersW.Close())
	}
	pr := &pair{ours: []*os.File{answersR, answersW, commandsR, commandsW}}
	pr.server = exec.CommandContext(ctx, exe, s.taskArgs("serve", w, p)...)
	pr.server.Stdin, pr.server.Stdout, pr.server.Stderr = commandsR, answersW, &pr.serverErr
	pr.client = exec.CommandContext(ctx, exe, s.taskArgs("run", w, p)...)
	pr.client.Stdin, pr.client.Stdout, pr.client.Stderr = answersR, &pr.out, &pr.clientErr
	pr.client.ExtraFiles = []*os.File{commandsW}
	if s.GOMAXPROCS > 0 {
		env := append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(s.GOMAXPROCS))
		pr.server.Env, pr.client.Env = env, env
	}
	return pr, nil
}

// run starts both processes and waits for the client's. With that the
// server's standard input ends, and so does the server.
func (pr *pair) run() outcome {
	err := pr.server.Start()
	if err == nil {
		if err = pr.client.Start(); err != nil {
			_ = pr.server.Process.Kill()
		}
	}
	for _, f := range pr.ours {
		f.Close()
	}
	if err != nil {
		if pr.server.Process != nil {
			_ = pr.server.Wait()
		}
		return outcome{Error: err.Error()}
	}
	clientErr := pr.client.Wait()
	serverErr := pr.wait()
	var o outcome
	if err := json.Unmarshal(pr.out.Bytes(), &o); err != nil {
		o.Error = processError("client", clientErr, &pr.clientErr)
	}
	if o.Result == nil {
		o.Error = strings.TrimPrefix(o.Error+"; "+processError("server", serverErr, &pr.serverErr), "; ")
		o.Error = strings.TrimSuffix(o.Error, "; ")
	}
	return o
}

// serverGrace is how long a server's process may take to end.
const serverGrace = 5 * time.Second

func (pr *pair) wait() error {
	kill := time.AfterFunc(serverGrace, func() { _ = pr.server.Process.Kill() })
	defer kill.Stop()
	return pr.server.Wait()
}

// processError describes how a process ended: its error, and its standard error output,
// which is cut to the first line if it is long.
func processError(who string, err error, stderr *bytes.Buffer) string {
	words := strings.TrimSpace(stderr.String())
	if lines := strings.Split(words, "\n"); len(lines) > 3 {
		head, _, _ := strings.Cut(words, "\n")
		words = head + " [...]"
	}
	if err == nil && words == "" {
		return ""
	}
	if err == nil {
		return fmt.Sprintf("%s: %s", who, words)
	}
	return strings.TrimSuffix(fmt.Sprintf("%s: %v: %s", who, err, words), ": ")
}
