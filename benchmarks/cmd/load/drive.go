package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sluicerpc/sluice/benchmarks/load"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
)

// driveFlags are what run and demo have in common.
type driveFlags struct {
	Preset string `arg:"" help:"pingpong, fan, firehose, bulk, hol, idle, churn or conns"`
	Peer   string `help:"library to drive; empty: sluice"`
	Proto  string `default:"sluice" help:"what sluice speaks: sluice, brpc, seastar or grpc"`
	driving
}

// driving is what every command has that drives a server.
type driving struct {
	load.Config

	Runs     int       `default:"1" help:"how often to run" group:"Verdict"`
	SLO      string    `name:"slo" help:"conditions that must hold: p99<2ms,errors==0,cpu_per_m<1.2" group:"Verdict"`
	FindKnee bool      `help:"open model: find the highest rate that meets the SLO; each try is a run" group:"Verdict"`
	KneeMin  load.Rate `default:"1k" help:"lowest rate to try" group:"Verdict"`
	KneeMax  load.Rate `default:"10M" help:"highest rate to try" group:"Verdict"`

	outputs
	Quiet bool `short:"q" help:"no progress and no text" group:"Output"`
}

// runCmd drives a server that is running already.
type runCmd struct {
	driveFlags
	Addr  string `default:"127.0.0.1:9000" help:"the server" group:"Server"`
	Admin string `default:"127.0.0.1:9001" help:"its admin endpoint; empty: it has none" group:"Server"`
}

// Run runs the preset.
func (c *runCmd) Run(e *env) error {
	d, err := c.prepare(e)
	if err != nil {
		return err
	}
	d.target.Addr, d.target.Admin = c.Addr, c.Admin
	return d.drive()
}

// driver is one invocation of run, demo or call.
type driver struct {
	*driving
	env    *env
	slo    report.SLO
	target load.Target
	report *report.Report
}

// prepare checks the flags before anything is started.
func (c *driveFlags) prepare(e *env) (*driver, error) {
	d := &driver{driving: &c.driving, env: e}
	preset, err := load.FindPreset(c.Preset)
	if err == nil {
		d.target.Peer, err = findPeer(c.Peer, c.Proto)
	}
	if err != nil {
		return nil, exit(exitUsage, err)
	}
	var notes []string
	if preset.Note != "" {
		notes = []string{"Raised for this preset: " + preset.Note + "."}
	}
	return d, d.begin(c.Preset, notes)
}

// begin checks the settings and begins the report.
func (d *driver) begin(preset string, notes []string) error {
	if err := d.check(); err != nil {
		return exit(exitUsage, err)
	}
	config, err := json.Marshal(d.Config)
	if err != nil {
		return err
	}
	d.report = &report.Report{
		Schema: report.Schema, Preset: preset, Peer: d.target.Peer.Name(), Command: commandLine(d.env.args),
		Environment: report.Environ(), Config: config, Notes: notes,
	}
	return nil
}

func (d *driver) check() (err error) {
	if d.SLO != "" {
		if d.slo, err = report.ParseSLO(d.SLO); err != nil {
			return err
		}
	}
	if d.FindKnee {
		rated := d.Rate > 0
		d.Rate = d.KneeMin
		switch {
		case rated:
			return errors.New("--find-knee sets the rate: no --rate; say where to look with --knee-min and --knee-max")
		case d.slo == nil:
			return errors.New("--find-knee needs an --slo to keep")
		case len(d.Stage) > 0 || d.Runs > 1:
			return errors.New("--find-knee sets the rate and runs as often as it takes: no --stage and no --runs")
		case d.KneeMin <= 0 || d.KneeMax < d.KneeMin:
			return errors.New("--knee-min must be above 0 and --knee-max not below it")
		}
	}
	if d.Runs < 1 {
		return errors.New("--runs must be 1 or more")
	}
	return errors.Join(d.Config.Check(), d.CheckPeer(d.target.Peer))
}

func commandLine(args []string) string {
	words := []string{"load"}
	for _, a := range args {
		if strings.ContainsAny(a, " <>|&;*?'\"$()") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// drive runs, writes the reports, and returns the verdict.
func (d *driver) drive() error {
	var err error
	if d.FindKnee {
		err = d.findKnee()
	} else {
		for n := 0; n < d.Runs && err == nil; n++ {
			_, err = d.once(d.env.ctx, d.Config)
		}
	}
	if len(d.report.Runs) == 0 {
		return verdictOf(d.report, err)
	}
	if d.slo != nil && !d.FindKnee {
		d.report.SLO, _ = d.slo.Judge(d.report.Runs)
	}
	writeErr := d.outputs.write(d.report, d.env.stdout, d.env.stderr, !d.Quiet)
	return worst(verdictOf(d.report, err), writeErr)
}

// once adds a run to the report.
func (d *driver) once(ctx context.Context, c load.Config) (*report.Run, error) {
	w := newWatcher(d, c)
	out, err := load.Run(ctx, d.target, c, w.watch)
	w.end()
	if out != nil {
		d.report.Runs = append(d.report.Runs, out)
	}
	return out, err
}

func (d *driver) findKnee() error {
	best, probes, err := load.FindKnee(d.env.ctx, float64(d.KneeMin), float64(d.KneeMax),
		func(ctx context.Context, rate float64) (*report.Run, report.Probe, error) {
			c := d.Config
			c.Rate = load.Rate(rate)
			out, err := d.once(ctx, c)
			if out == nil {
				return nil, report.Probe{}, err
			}
			return out, d.probe(rate, out), err
		})
	d.report.Knee = probes
	if best != nil {
		d.report.Runs = []*report.Run{best}
	}
	return err
}

func (d *driver) probe(rate float64, out *report.Run) report.Probe {
	p := report.Probe{Rate: rate, Got: out.Rate, P99: out.Response.P99}
	verdicts, pass := d.slo.Judge([]*report.Run{out})
	for _, v := range verdicts {
		if !v.Pass {
			p.Failed = append(p.Failed, v.Condition+" ("+v.Text+")")
		}
	}
	p.Invalid = out.Invalid
	p.Pass = pass && len(out.Invalid) == 0
	return p
}

// verdictOf returns the most important error of a report, and with it the exit code.
func verdictOf(r *report.Report, err error) error {
	var checks report.Checks
	for _, run := range r.Runs {
		checks.Lost += run.Checks.Lost
		checks.Duplicated += run.Checks.Duplicated
		checks.Reordered += run.Checks.Reordered
		checks.Corrupted += run.Checks.Corrupted
	}
	if checks.Violations() > 0 {
		return exit(exitViolation, fmt.Errorf("delivery violated: %d lost, %d duplicated, %d reordered, %d corrupted",
			checks.Lost, checks.Duplicated, checks.Reordered, checks.Corrupted))
	}
	if _, ok := errors.AsType[*load.ConnectError](err); ok {
		return exit(exitConnect, err)
	}
	if _, ok := errors.AsType[*load.SetupError](err); ok {
		return exit(exitUsage, err)
	}
	if _, ok := errors.AsType[*load.GoneError](err); ok {
		return exit(exitGone, err)
	}
	if errors.Is(err, context.Canceled) {
		return exit(exitInterrupted, errors.New("interrupted"))
	}
	if err != nil {
		return err
	}
	if err := unsettled(r); err != nil {
		return err
	}
	return cmp.Or(failedCalls(r), gates(r))
}

// unsettled is the error of runs of which it is not known whether every message arrived.
func unsettled(r *report.Report) error {
	var unconfirmed, errs uint64
	notBack := 0
	found := false
	for _, run := range r.Runs {
		found = found || run.Unsettled()
		unconfirmed, errs = unconfirmed+run.Checks.Unconfirmed, errs+run.Errors
		for _, f := range run.Faults {
			notBack += f.Broken - f.Recovered
		}
	}
	if !found {
		return nil
	}
	return exit(exitUnconfirmed, fmt.Errorf("delivery unconfirmed: %d messages; %d streams ended with an error, %d did not recover from a fault",
		unconfirmed, errs, notBack))
}

// gates checks the conditions on figures.
func gates(r *report.Report) error {
	var missed []string
	for _, v := range r.SLO {
		if !v.Pass {
			missed = append(missed, fmt.Sprintf("%s (%s)", v.Condition, v.Text))
		}
	}
	if len(r.Knee) > 0 {
		switch k := report.KneeOf(r.Knee); {
		case k.Invalid > 0:
			return exit(exitInvalid, errors.New(k.String()))
		case k.Rate == 0:
			missed = append(missed, "at every rate tried")
		}
	}
	if len(missed) > 0 {
		return exit(exitSLO, errors.New("SLO missed: "+strings.Join(missed, ", ")))
	}
	for _, run := range r.Runs {
		if len(run.Invalid) > 0 {
			return exit(exitInvalid, errors.New("INVALID: "+strings.Join(run.Invalid, "; ")))
		}
	}
	return nil
}

// worst returns both errors, with the exit code of the more important one: delivery
// violations and a lost server before a report that could not be written, that before
// the rest.
func worst(verdict, writeErr error) error {
	if writeErr == nil || verdict == nil {
		return errors.Join(verdict, writeErr)
	}
	x, ok := errors.AsType[*exitError](verdict)
	if ok && (x.code == exitViolation || x.code == exitGone || x.code == exitInterrupted || x.code == exitUnconfirmed) {
		return exit(x.code, errors.Join(verdict, writeErr))
	}
	return errors.Join(writeErr, verdict)
}
