package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/relay"
)

// carry is the process that stands for a long path. It ends when its standard input does.
func carry(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("versus relay", flag.ContinueOnError)
	to := fs.String("to", "", "address of the server")
	delay := fs.Duration("delay", 0, "each way")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := relay.New(*to)
	if err != nil {
		return err
	}
	r.Delay(*delay)
	if err := json.NewEncoder(out).Encode(hello{Addr: r.Addr()}); err != nil {
		return errors.Join(err, r.Close())
	}
	_, err = io.Copy(io.Discard, in)
	return errors.Join(err, r.Close())
}

// between starts a relay in a process of its own and has the client connect to that, so that what
// the relay costs is not counted with either side. end ends it.
func (t *task) between(rtt time.Duration) (end func(), err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "relay", "-to", t.config.Addr, "-delay", (rtt / 2).String())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end = func() {
		in.Close()
		_ = cmd.Wait() // nothing depends on it any more
	}
	var h hello
	if err := json.NewDecoder(out).Decode(&h); err != nil {
		end()
		return nil, fmt.Errorf("the relay did not start: %w", err)
	}
	t.config.Addr = h.Addr
	return end, nil
}
