package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
)

// outputs are the forms of a report that were asked for. A dash is standard
// output.
type outputs struct {
	JSON  string `name:"json" placeholder:"FILE" help:"write the report as JSON (- for standard output)" group:"Output"`
	CSV   string `name:"csv" placeholder:"FILE" help:"write the time series as CSV" group:"Output"`
	HLog  string `name:"hlog" placeholder:"FILE" help:"write the histograms as an HDR log" group:"Output"`
	HTML  string `name:"html" placeholder:"FILE" help:"write the report as one HTML file with plots" group:"Output"`
	Bench string `name:"bench" placeholder:"FILE" help:"write Go benchmark lines, for benchstat" group:"Output"`
}

type form struct {
	path  string
	write func(io.Writer) error
}

// write writes all forms, and text to stdout. If one can't be written the figures go to
// stdout as JSON, or to stderr if that fails too.
func (o *outputs) write(r *report.Report, stdout, stderr io.Writer, text bool) error {
	forms := []form{{o.JSON, r.JSON}, {o.CSV, r.CSV}, {o.HLog, r.HLog}, {o.HTML, r.HTML}, {o.Bench, r.Bench}}
	if text {
		forms = append([]form{{"-", r.Text}}, forms...)
	}
	var errs []error
	for _, f := range forms {
		if f.path == "" {
			continue
		}
		if err := f.to(stdout); err != nil {
			errs = append(errs, fmt.Errorf("writing the report: %w", err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	if err := r.JSON(stdout); err == nil {
		fmt.Fprintln(stderr, "load: a report could not be written; its figures are on standard output as JSON")
	} else {
		fmt.Fprintln(stderr, "load: neither a report nor standard output could be written; the figures follow as JSON")
		errs = append(errs, r.JSON(stderr))
	}
	return exit(exitWrite, errors.Join(errs...))
}

func (f form) to(stdout io.Writer) error {
	if f.path == "-" {
		return f.write(stdout)
	}
	path := f.path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return f.into(path) // a device or a pipe
	}
	// An existing report stays until this one is complete.
	part := path + ".part"
	err := f.into(part)
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		_ = os.Remove(part) // it may not exist
	}
	return err
}

func (f form) into(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.write(file), file.Close())
}

// reportCmd writes a JSON report in other forms.
type reportCmd struct {
	From string `arg:"" help:"JSON report"`
	outputs
}

// Run writes them; without any, the text.
func (c *reportCmd) Run(e *env) error {
	r, err := report.Read(c.From)
	if err != nil {
		return exit(exitUsage, err)
	}
	return c.outputs.write(r, e.stdout, e.stderr, c.outputs == outputs{})
}

// compareCmd compares two JSON reports.
type compareCmd struct {
	A    string `arg:"" help:"JSON report before"`
	B    string `arg:"" help:"JSON report after"`
	Gate bool   `help:"exit with 4 if B is worse, or has runs that failed or lost messages; needs reports of 4 runs or more"`
	JSON bool   `help:"write the verdicts as JSON"`
}

// Run prints the verdicts.
func (c *compareCmd) Run(e *env) error {
	a, err := report.Read(c.A)
	if err != nil {
		return exit(exitUsage, err)
	}
	b, err := report.Read(c.B)
	if err != nil {
		return exit(exitUsage, err)
	}
	cs, err := report.Compare(a, b)
	if err != nil {
		return exit(exitUsage, err)
	}
	if c.JSON {
		err = report.CompareJSON(e.stdout, a, b, cs)
	} else {
		err = report.CompareText(e.stdout, a, b, cs)
	}
	if err != nil {
		return exit(exitWrite, err)
	}
	switch verdict := report.Overall(cs); {
	case c.Gate && verdict == report.Worse:
		return exit(exitSLO, errors.New("report B is worse than A"))
	case c.Gate && verdict == report.Unknown:
		return exit(exitUsage, errors.New("--gate: too few runs to tell a difference from noise; make the reports with --runs=4 or more"))
	}
	return nil
}
