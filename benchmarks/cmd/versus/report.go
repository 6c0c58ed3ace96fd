package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// formatVersion is of the JSON file.
const formatVersion = 1

// report holds every run.
type report struct {
	Version     int         `json:"version"`
	Started     time.Time   `json:"started"`
	Environment environment `json:"environment"`
	Settings    *settings   `json:"settings"`
	Tables      []*table    `json:"workloads"`
}

// table is one workload's runs.
type table struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Unit  string `json:"unit"`
	Rows  []*row `json:"peers"`
}

// row is one peer's.
type row struct {
	Peer   string             `json:"peer"`
	Runs   []*workload.Result `json:"runs"` // by round; nil where one failed
	Errors []string           `json:"errors,omitempty"`
	Faulty bool               `json:"faulty,omitempty"`
}

func newReport(s *settings) *report {
	return &report{Version: formatVersion, Started: time.Now(), Environment: readEnvironment(), Settings: s}
}

func (r *report) table(w workload.Workload) *table {
	for _, t := range r.Tables {
		if t.Name == w.Name {
			return t
		}
	}
	t := &table{Name: w.Name, About: w.About, Unit: w.Unit}
	r.Tables = append(r.Tables, t)
	return t
}

func (t *table) row(name string) *row {
	for _, r := range t.Rows {
		if r.Peer == name {
			return r
		}
	}
	return nil
}

func (r *report) add(w workload.Workload, p peer.Peer, round int, o outcome) {
	t := r.table(w)
	line := t.row(p.Name())
	if line == nil {
		line = &row{Peer: p.Name()}
		t.Rows = append(t.Rows, line)
	}
	line.Runs = append(line.Runs, o.Result)
	line.Faulty = line.Faulty || o.Faulty
	if o.Error != "" {
		line.Errors = append(line.Errors, fmt.Sprintf("round %d: %s", round+1, o.Error))
	}
}

func (r *report) exitCode() int {
	code := 0
	for _, t := range r.Tables {
		for _, line := range t.Rows {
			if line.Faulty {
				return exitDelivery
			}
			if len(line.Errors) > 0 {
				code = exitFailed
			}
		}
	}
	return code
}

// write prints the tables to out and writes the files asked for. One that
// can't be written does not keep the others from being.
func (r *report) write(out io.Writer, s *settings) error {
	md := r.markdown()
	_, err := io.WriteString(out, md)
	if s.mdFile != "" {
		err = errors.Join(err, os.WriteFile(s.mdFile, []byte(md), 0o644))
	}
	if s.jsonFile != "" {
		data, merr := json.MarshalIndent(r, "", "\t")
		err = errors.Join(err, merr)
		if merr == nil {
			err = errors.Join(err, os.WriteFile(s.jsonFile, append(data, '\n'), 0o644))
		}
	}
	return err
}

func (r *report) markdown() string {
	var b strings.Builder
	e := r.Environment
	fmt.Fprintf(&b, "%s; %s, %d CPUs, %s, %s. Client and server as two processes on loopback",
		r.Started.UTC().Format("2006-01-02"), e.CPU, e.CPUs, e.Kernel, e.Go)
	if e.GOMAXPROCS != "" || r.Settings.GOMAXPROCS > 0 {
		fmt.Fprintf(&b, ", GOMAXPROCS %s", or(r.Settings.GOMAXPROCS, e.GOMAXPROCS))
	}
	fmt.Fprintf(&b, ".\n\nCommand: `versus %s`. Medians of %d rounds with (minimum..maximum); CPU, allocations and context switches are of both processes.\n",
		strings.Join(r.Settings.Args, " "), r.Settings.Rounds)
	for _, t := range r.Tables {
		t.markdown(&b)
	}
	r.ratios(&b)
	r.failures(&b)
	return b.String()
}

func or(n int, s string) string {
	if n > 0 {
		return fmt.Sprint(n)
	}
	return s
}

func (r *report) failures(b *strings.Builder) {
	head := "\n### Failures\n\n"
	for _, t := range r.Tables {
		for _, line := range t.Rows {
			for _, e := range line.Errors {
				fmt.Fprintf(b, "%s- %s, %s, %s\n", head, t.Name, line.Peer, strings.ReplaceAll(e, "\n", "; "))
				head = ""
			}
		}
	}
}
