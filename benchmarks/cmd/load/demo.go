package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// demoCmd drives a server process that it starts and ends.
type demoCmd struct{ driveFlags }

// Run starts the server and runs the preset.
func (c *demoCmd) Run(e *env) error {
	d, err := c.prepare(e)
	if err != nil {
		return err
	}
	s, err := startServer(d)
	if err != nil {
		return exit(exitConnect, fmt.Errorf("starting the server: %w", err))
	}
	d.target.Addr, d.target.Admin = s.Addr, s.Admin
	err = d.drive()
	s.stop()
	return err
}

// child is a server process. It ends when its standard input does, and so with this
// process.
type child struct {
	announcement
	cmd   *exec.Cmd
	stdin io.Closer
}

func startServer(d *driver) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := d.Config.PeerOptions()
	cmd := exec.Command(self, "serve", "--json", "--until-eof", "--addr=127.0.0.1:0", "--admin=127.0.0.1:0",
		"--peer="+d.target.Peer.Name(), "--max-message="+strconv.Itoa(o.MaxMessage),
		"--max-streams="+strconv.Itoa(o.Streams), "--max-conns="+strconv.Itoa(o.Conns),
		"--checksum="+strconv.FormatBool(o.Checksum), "--duplex="+strconv.FormatBool(o.Duplex))
	cmd.Stderr = os.Stderr
	ownGroup(cmd) // Ctrl-C must not end the server before the run is over
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &child{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.announcement)
	}
	if err != nil {
		s.stop()
		return nil, errors.Join(errors.New("it did not print its address"), err)
	}
	return s, nil
}

// grace is how long a server may take to end by itself.
const grace = 5 * time.Second

func (s *child) stop() {
	s.stdin.Close()
	t := time.AfterFunc(grace, func() { _ = s.cmd.Process.Kill() })
	defer t.Stop()
	_ = s.cmd.Wait() // its exit code does not matter: the run is over
}
