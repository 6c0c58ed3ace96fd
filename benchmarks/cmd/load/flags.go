package main

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/sluicerpc/sluice/benchmarks/load"
)

// presetValues gives flags that are not on the command line the values of the
// preset that is.
var presetValues kong.ResolverFunc = func(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if ctx.Command() == "call <target> <method>" {
		return flagValue(fitted(load.ServiceConfig(), ctx), flag.Name), nil
	}
	for _, p := range ctx.Path {
		if p.Positional == nil || p.Positional.Name != "preset" {
			continue
		}
		preset, err := load.FindPreset(ctx.Value(p).String())
		if err != nil {
			return nil, nil // the command says so; here it would be said of a flag
		}
		return flagValue(fitted(preset.Config, ctx), flag.Name), nil
	}
	return nil, nil
}

// hideUnused leaves flags out of the help of call that are for the harness's own servers.
func hideUnused(k *kong.Kong) error {
	for _, c := range k.Model.Children {
		for _, f := range c.Flags {
			if c.Name == "call" && slices.Contains([]string{"workload", "bulk-streams", "bulk-size"}, f.Name) {
				f.Hidden = true
			}
		}
	}
	return nil
}

// fitted returns a preset's settings without those that the command line replaces: its
// schedule replaces the preset's rate, and in the open model every message is measured,
// since there are few.
func fitted(c load.Config, ctx *kong.Context) load.Config {
	given := func(name string) bool {
		return slices.ContainsFunc(ctx.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == name })
	}
	if given("stage") || given("find-knee") {
		c.Rate = 0
	}
	if given("stage") || given("find-knee") || given("rate") {
		c.Sample = 1
	}
	return c
}

// flagValue returns a field of c as the text of its flag; nil if c has no such
// field or leaves it empty.
func flagValue(c load.Config, name string) any {
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		if kebab(v.Type().Field(i).Name) != name || v.Field(i).IsZero() {
			continue
		}
		if m, ok := v.Field(i).Interface().(encoding.TextMarshaler); ok {
			text, err := m.MarshalText()
			if err != nil {
				return nil
			}
			return string(text)
		}
		return fmt.Sprint(v.Field(i).Interface())
	}
	return nil
}

// kebab turns MaxMessage into max-message.
func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
