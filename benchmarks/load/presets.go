package load

import (
	"fmt"
	"strings"
	"time"
)

// A Preset is a workload of the comparison tables under a name of its own.
type Preset struct {
	Name string
	Help string
	// Note names the limits that the preset raises above the defaults.
	Note   string
	Config Config
}

func sizes(text string) Sizes {
	s, err := ParseSizes(text)
	if err != nil {
		panic(err) // a test calls every preset
	}
	return s
}

// base is what the presets start from.
func base() Config {
	return Config{
		Workload: Echo, Conns: 1, Streams: 1, Outstanding: 1, Size: sizes("64"),
		BulkSize: sizes("16MiB"), InFlight: 64, Sample: 1,
		Duration: 10 * time.Second, Warmup: time.Second, Interval: time.Second, Drain: 10 * time.Second,
	}
}

// ServiceConfig is what a service of the user's is driven with unless the command line says
// otherwise. How messages are made and what is done with them is left open.
func ServiceConfig() Config {
	c := base()
	c.Workload, c.BulkSize, c.Checksum = "", Sizes{}, true // as a client of the library has it
	return c
}

// Presets returns W1 to W8, in that order.
func Presets() []Preset {
	preset := func(name, help, note string, f func(*Config)) Preset {
		c := base()
		f(&c)
		return Preset{Name: name, Help: help, Note: note, Config: c}
	}
	return []Preset{
		preset("pingpong", "W1: one stream, one 64 B echo at a time", "", func(*Config) {}),
		preset("fan", "W2: one connection, 64 streams with 64 echoes of 64 B each under way", "", func(c *Config) {
			c.Streams, c.Outstanding, c.Sample = 64, 64, 64
		}),
		preset("firehose", "W3: one stream, 64 B one way (--size 1KiB for the other row)", "", func(c *Config) {
			c.Workload, c.Sample = OneWay, 0
		}),
		preset("bulk", "W4: one stream, 1 MiB one way (--size 64KiB for the other row)", "messages up to 4 MiB", func(c *Config) {
			c.Workload, c.Size, c.Sample = OneWay, sizes("1MiB"), 0
		}),
		preset("hol", "W5: paced 64 B echoes beside 16 MiB messages flat out on the same connection", "messages up to 16 MiB", func(c *Config) {
			c.Rate, c.InFlight, c.BulkStreams = 1000, 1, 1
		}),
		preset("idle", "W6: 10,000 idle streams on 16 connections (--streams 6250 for 100,000)", "more than 1,000 streams a connection", func(c *Config) {
			c.Workload, c.Conns, c.Streams, c.Duration, c.Warmup = Idle, 16, 625, 5*time.Second, 0
		}),
		preset("churn", "W7: open, one 64 B echo, close; 64 at a time on one connection", "", func(c *Config) {
			c.Workload, c.Streams = Churn, 64
		}),
		preset("conns", "W8: 2,000 connections, one 1 KiB echo a second each (--conns 8000 --rate 8k for the other row)", "more than 1,024 connections an address", func(c *Config) {
			c.Conns, c.Size, c.Rate, c.InFlight = 2000, sizes("1KiB"), 2000, 1
		}),
	}
}

// PresetNames are the names of all, in the order of Presets.
func PresetNames() (names []string) {
	for _, p := range Presets() {
		names = append(names, p.Name)
	}
	return names
}

// FindPreset returns the preset of that name.
func FindPreset(name string) (Preset, error) {
	for _, p := range Presets() {
		if p.Name == name {
			return p, nil
		}
	}
	return Preset{}, fmt.Errorf("no preset %q; there are %s", name, strings.Join(PresetNames(), ", "))
}
