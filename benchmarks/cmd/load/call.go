package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer/sluicepeer"
)

// callCmd drives a service that is not the harness's.
type callCmd struct {
	Target string `arg:"" help:"HOST:PORT of a server, for another protocol with brpc://, seastar://, grpc:// or tri:// before it"`
	Method string `arg:"" help:"what to call, as in pkg.Service/Method; over seastar a number, as in #7"`

	Shape   string        `default:"unary" enum:"unary,stream" help:"unary: calls, one at a time for each of --streams; stream: streams on which the service sends one message for each that it gets, in order" group:"Service"`
	Data    string        `placeholder:"TEXT" help:"the message, in which {{counter}}, {{stream}}, {{random 16}}, {{random}} and {{hex 16}} are replaced; empty: random bytes, as many as --size says" group:"Service"`
	File    string        `placeholder:"FILE" help:"the message, as it is in this file" group:"Service"`
	Request string        `placeholder:"FILE" help:"what is sent to open a stream, as it is in this file, for services that expect it (brpc's)" group:"Service"`
	Timeout time.Duration `help:"of a call; 0: 60s" group:"Service"`

	Token    string `placeholder:"FILE" help:"send the token in this file" group:"Credentials"`
	TLS      bool   `name:"tls" help:"use TLS; the other flags of it imply it" group:"Credentials"`
	CA       string `name:"ca" placeholder:"FILE" help:"trust only servers whose certificate is signed by one in this PEM file" group:"Credentials"`
	Cert     string `placeholder:"FILE" help:"PEM file with the client's certificate chain" group:"Credentials"`
	Key      string `placeholder:"FILE" help:"PEM file with that certificate's key" group:"Credentials"`
	Insecure bool   `help:"do NOT check the server's certificate: anyone between it and us can read and change everything, the token too; for tests" group:"Credentials"`
	driving
}

// Run runs calls or streams.
func (c *callCmd) Run(e *env) error {
	s, addr, err := c.service()
	if err != nil {
		return exit(exitUsage, err)
	}
	d := &driver{driving: &c.driving, env: e, target: load.Target{Peer: s.Peer(), Addr: addr}}
	notes := []string{"The service's replies were counted, and not looked into."}
	if c.Insecure {
		notes = append(notes, "The server's certificate was NOT checked (--insecure).")
	}
	if err := d.begin("call "+c.Method, notes); err != nil {
		return err
	}
	return d.drive()
}

// service is what the flags name, and its address. It completes the settings.
func (c *callCmd) service() (s sluicepeer.Service, addr string, err error) {
	switch {
	case c.Workload != "":
		return s, "", errors.New("--workload is for the harness's own servers: a service has a --shape")
	case c.BulkStreams > 0:
		return s, "", errors.New("--bulk-streams is for the harness's own servers")
	case c.Data != "" && c.File != "":
		return s, "", errors.New("--data and --file are both the message: leave one out")
	case c.Request != "" && c.Shape != "stream":
		return s, "", errors.New("--request opens a stream: a unary call has its message alone")
	case c.Timeout < 0 || c.Timeout > 0 && c.Shape != "unary":
		return s, "", errors.New("--timeout is of unary calls, and not below 0")
	}
	if s.Proto, addr, err = sluicepeer.SplitTarget(c.Target); err != nil {
		return s, "", err
	}
	s.Method, s.Unary, s.Timeout = c.Method, c.Shape == "unary", c.Timeout
	c.Workload = load.Echo
	if s.Unary {
		c.Workload, c.InFlight = load.Call, 1
	}
	if s.TLS, err = c.tlsConfig(addr); err != nil {
		return s, "", err
	}
	if s.Token, err = readToken(c.Token); err != nil {
		return s, "", err
	}
	if c.Request != "" {
		if s.Request, err = os.ReadFile(c.Request); err != nil {
			return s, "", err
		}
	}
	c.Payload, err = c.payload()
	return s, addr, err
}

func (c *callCmd) payload() (*load.Payload, error) {
	if c.File == "" {
		return load.ParsePayload(c.Data)
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		return nil, err
	}
	return load.BytesPayload(c.File, b), nil
}

// tlsConfig is nil for plain text. It names the server, since a fault's relay has another
// address.
func (c *callCmd) tlsConfig(addr string) (*tls.Config, error) {
	switch {
	case (c.Cert == "") != (c.Key == ""):
		return nil, errors.New("--cert and --key go together")
	case c.Insecure && c.CA != "":
		return nil, errors.New("--insecure accepts any certificate: leave --ca out")
	case !c.TLS && !c.Insecure && c.CA == "" && c.Cert == "":
		return nil, nil
	}
	out := &tls.Config{InsecureSkipVerify: c.Insecure}
	if host, _, err := net.SplitHostPort(addr); err == nil {
		out.ServerName = host
	}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no PEM certificate", c.CA)
		}
	}
	if c.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}

func readToken(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	token := bytes.TrimSpace(text)
	if len(token) == 0 {
		return nil, fmt.Errorf("%s holds no token", file)
	}
	return token, nil
}

// failedCalls is the error of runs in which calls were answered with an error, unless the SLO
// says how many may be.
func failedCalls(r *report.Report) error {
	var failed, answered uint64
	text := ""
	for _, run := range r.Runs {
		failed, answered = failed+run.FailedCalls(), answered+run.Checks.Messages
		if text == "" {
			text = run.FailedText()
		}
	}
	if failed == 0 || report.Judges(r.SLO, "failed") {
		return nil
	}
	return exit(exitFailed, fmt.Errorf("%d of %d calls failed: %s", failed, failed+answered, text))
}
