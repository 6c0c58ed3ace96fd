package dubbo_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/contrib/dubbo"
)

// The whole of a file is read, and what has no effect is warned of.
func TestLoadFile(t *testing.T) {
	const greeter = "org.apache.dubbo.sample.tri.Greeter"
	c, err := dubbo.LoadFile(filepath.Join("testdata", "application.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := &dubbo.Config{
		Protocols:  []dubbo.Protocol{{ID: "triple", IP: "0.0.0.0", Port: 8888}},
		Services:   []dubbo.Service{{ID: "GreeterProvider", Interface: greeter, Version: "1.0.0", Group: "test", Protocols: []string{"triple"}}},
		References: []dubbo.Reference{{ID: "GreeterClient", Interface: greeter, URL: "tri://localhost:20000", Version: "1.0.0"}},
		LogLevel:   slog.LevelDebug,
		Warnings: []dubbo.Warning{
			{Path: "dubbo.registries", Line: 10, Text: "no effect: there is no discovery, servers are not registered and clients dial addresses"},
			{Path: "dubbo.provider.services.GreeterProvider.tag", Line: 19, Text: "no effect: there is no routing by tags"},
			{Path: "dubbo.provider.services.GreeterProvider.typo", Line: 22, Text: "unknown key"},
			{Path: "dubbo.routers", Line: 30, Text: "no effect: there is no routing, a client dials one address"},
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v\nwant\n%+v", c, want)
	}
	if got, want := c.Warnings[2].String(), "dubbo.provider.services.GreeterProvider.typo (line 22): unknown key"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if r, ok := c.Reference("GreeterClient"); !ok || r != c.References[0] {
		t.Errorf("%v, %v", r, ok)
	}
	if r, ok := c.Reference("another"); ok {
		t.Errorf("%v", r)
	}
}

// The environment says where the file is; without it is in the working directory.
func TestLoad(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(name, port string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("dubbo: {protocols: {p: {port: "+port+"}}}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := func() int {
		t.Helper()
		c, err := dubbo.Load()
		if err != nil {
			t.Fatal(err)
		}
		return c.Protocols[0].Port
	}
	t.Setenv(dubbo.ConfigPathEnv, "")
	if _, err := dubbo.Load(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dubbo.DefaultConfigPath) {
		t.Errorf("no file: %v", err)
	}
	write("application.yaml", "1")
	if got := port(); got != 1 {
		t.Errorf("the default has port %d", got)
	}
	write("other.yaml", "2")
	t.Setenv("DUBBO_CONFIG_PATH", "other.yaml")
	if got := port(); got != 2 {
		t.Errorf("the environment's has port %d", got)
	}
	write("other.yaml", "x")
	var ce *dubbo.ConfigError
	if _, err := dubbo.Load(); !errors.As(err, &ce) || ce.File != "other.yaml" {
		t.Errorf("%v", err)
	}
}

// Keys may be missing, spelled as dubbo-go spells them, and shared by anchors.
func TestParse(t *testing.T) {
	byDefault := dubbo.Protocol{ID: "p", IP: "0.0.0.0", Port: 8888}
	for name, tc := range map[string]struct {
		yaml string
		want dubbo.Config
	}{
		"nothing":          {"", dubbo.Config{}},
		"a comment":        {"# nothing\n", dubbo.Config{}},
		"nothing of ours":  {"dubbo:\n", dubbo.Config{}},
		"null":             {"dubbo: {protocols: null, provider: ~, consumer: , logging: }", dubbo.Config{}},
		"defaults":         {"dubbo: {protocols: {p: }}", dubbo.Config{Protocols: []dubbo.Protocol{byDefault}}},
		"empty":            {"dubbo: {protocols: {p: {port: '', name: ''}}}", dubbo.Config{Protocols: []dubbo.Protocol{byDefault}}},
		"a number":         {"dubbo: {protocols: {p: {ip: '::1', port: 20000, name: triple}}}", dubbo.Config{Protocols: []dubbo.Protocol{{ID: "p", IP: "::1", Port: 20000}}}},
		"a free port":      {"dubbo: {protocols: {p: {port: '0'}}}", dubbo.Config{Protocols: []dubbo.Protocol{{ID: "p", IP: "0.0.0.0"}}}},
		"the file's order": {"dubbo: {protocols: {b: {port: 1}, a: {port: 2}}}", dubbo.Config{Protocols: []dubbo.Protocol{{"b", "0.0.0.0", 1}, {"a", "0.0.0.0", 2}}}},
		"dubbo-go's lists": {
			"dubbo: {protocols: {p: , q: }, provider: {services: {s: {interface: i, protocol-ids: [p, q]}}}}",
			dubbo.Config{
				Protocols: []dubbo.Protocol{byDefault, {ID: "q", IP: "0.0.0.0", Port: 8888}},
				Services:  []dubbo.Service{{ID: "s", Interface: "i", Protocols: []string{"p", "q"}}},
			},
		},
		"camel case, and a text for a list": {
			"dubbo: {Protocols: {p: {IP: a, PORT: 1}}, provider: {services: {s: {Interface: i, protocolIds: 'p, p'}}}}",
			dubbo.Config{Protocols: []dubbo.Protocol{{"p", "a", 1}}, Services: []dubbo.Service{{ID: "s", Interface: "i", Protocols: []string{"p", "p"}}}},
		},
		"a service by the protocol's name": {
			"dubbo: {protocols: {p: }, provider: {services: {s: {interface: i, protocol: tri}}}}",
			dubbo.Config{Protocols: []dubbo.Protocol{byDefault}, Services: []dubbo.Service{{ID: "s", Interface: "i"}}},
		},
		"and by that of the default one": {
			"dubbo: {provider: {services: {s: {interface: i, protocol: triple}}}}",
			dubbo.Config{Services: []dubbo.Service{{ID: "s", Interface: "i"}}},
		},
		"an anchor": {
			"dubbo:\n  provider:\n    services:\n      a: &a {interface: i, version: 1}\n      b: *a\n",
			dubbo.Config{Services: []dubbo.Service{{ID: "a", Interface: "i", Version: "1"}, {ID: "b", Interface: "i", Version: "1"}}},
		},
		"merged": {
			"dubbo:\n  provider:\n    services:\n      a: &a {interface: i, version: 1}\n      b: {<<: *a, version: 2}\n      c: {group: g, <<: [*a, {version: 3}]}\n",
			dubbo.Config{Services: []dubbo.Service{
				{ID: "a", Interface: "i", Version: "1"}, {ID: "b", Interface: "i", Version: "2"}, {ID: "c", Interface: "i", Version: "1", Group: "g"},
			}},
		},
		"dubbo-go's logger":   {"dubbo: {logger: {level: WARN}}", dubbo.Config{LogLevel: slog.LevelWarn}},
		"the level of a text": {"logging: {level: trace}", dubbo.Config{LogLevel: slog.LevelDebug - 4}},
		"unknown keys": {
			"server: {}\ndubbo:\n  a_b: 1\n  protocols: {p: {params: {}}}\n  provider: {filter: x}\n  consumer: {check: true, references: {r: {cluster: x}}}\n  logger: {driver: zap}\n",
			dubbo.Config{
				Protocols: []dubbo.Protocol{byDefault}, References: []dubbo.Reference{{ID: "r"}},
				Warnings: []dubbo.Warning{
					{"server", 1, "unknown key"}, {"dubbo.a_b", 3, "unknown key"}, {"dubbo.protocols.p.params", 4, "unknown key"},
					{"dubbo.provider.filter", 5, "unknown key"}, {"dubbo.consumer.check", 6, "unknown key"},
					{"dubbo.consumer.references.r.cluster", 6, "unknown key"}, {"dubbo.logger.driver", 7, "unknown key"},
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dubbo.Parse([]byte(tc.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*c, tc.want) {
				t.Errorf("%+v\nwant\n%+v", *c, tc.want)
			}
		})
	}
}

// A mistake is told with its path and its line.
func TestMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		yaml string
		want dubbo.ConfigError
	}{
		"no YAML":          {"dubbo:\n\t- x", dubbo.ConfigError{Line: 2, Reason: "no YAML: found character that cannot start any token"}},
		"two documents":    {"dubbo:\n---\ndubbo:\n", dubbo.ConfigError{Line: 2, Reason: "a second YAML document"}},
		"a list":           {"- dubbo", dubbo.ConfigError{Line: 1, Reason: "must be a mapping"}},
		"a text":           {"dubbo:\n  protocols: x", dubbo.ConfigError{Path: "dubbo.protocols", Line: 2, Reason: "must be a mapping"}},
		"another protocol": {"dubbo:\n  protocols:\n    d:\n      name: dubbo\n      port: 1", dubbo.ConfigError{Path: "dubbo.protocols.d.name", Line: 4, Reason: `there is no protocol "dubbo": tri and triple mean Triple, and there is no other`}},
		"of a reference":   {"dubbo:\n  consumer: {references: {r: {protocol: dubbo}}}", dubbo.ConfigError{Path: "dubbo.consumer.references.r.protocol", Line: 2, Reason: `there is no protocol "dubbo": tri and triple mean Triple, and there is no other`}},
		"no port":          {"dubbo:\n  protocols:\n    d:\n      port: http", dubbo.ConfigError{Path: "dubbo.protocols.d.port", Line: 4, Reason: `"http" is no port`}},
		"too large":        {"dubbo: {protocols: {d: {port: 65536}}}", dubbo.ConfigError{Path: "dubbo.protocols.d.port", Line: 1, Reason: `"65536" is no port`}},
		"a list of ports":  {"dubbo: {protocols: {d: {port: [1, 2]}}}", dubbo.ConfigError{Path: "dubbo.protocols.d.port", Line: 1, Reason: "must be a text"}},
		"a placeholder":    {"dubbo: {protocols: {d: {port: '${port:1}'}}}", dubbo.ConfigError{Path: "dubbo.protocols.d.port", Line: 1, Reason: "${port:1}: placeholders are not replaced"}},
		"no interface":     {"dubbo:\n  provider:\n    services:\n      s: {version: 1}", dubbo.ConfigError{Path: "dubbo.provider.services.s.interface", Line: 4, Reason: "the service's name is missing"}},
		"nobody's service": {"dubbo:\n  protocols: {a: }\n  provider:\n    services:\n      s:\n        interface: i\n        protocol-ids: [a, b]", dubbo.ConfigError{Path: "dubbo.provider.services.s.protocol", Line: 7, Reason: `there is no protocol "b"`}},
		"a part of a path": {"dubbo:\n  provider: {services: {s: {interface: i, protocol: ip}}}", dubbo.ConfigError{Path: "dubbo.provider.services.s.protocol", Line: 2, Reason: `there is no protocol "ip"`}},
		"twice":            {"dubbo:\n  protocols: {a: }\n  protocols: {b: }", dubbo.ConfigError{Path: "dubbo.protocols", Line: 3, Reason: "was given in line 2 before"}},
		"in two spellings": {"dubbo:\n  protocols:\n    a:\n      port: 1\n      Port: 2", dubbo.ConfigError{Path: "dubbo.protocols.a.Port", Line: 5, Reason: "was given in line 4 before"}},
		"a level":          {"logging: {level: loud}", dubbo.ConfigError{Path: "logging.level", Line: 1, Reason: `"loud" is no level: trace, debug, info, warn and error are`}},
		"merged in itself": {"dubbo: &d\n  <<: *d", dubbo.ConfigError{Path: "dubbo", Line: 1, Reason: "more than 8 mappings are merged inside each other"}},
		"merged text":      {"dubbo:\n  protocols:\n    <<: x", dubbo.ConfigError{Path: "dubbo.protocols", Line: 2, Reason: "must be a mapping"}},
		"the first of two": {"dubbo: {protocols: {a: {port: x, name: y}}}", dubbo.ConfigError{Path: "dubbo.protocols.a.port", Line: 1, Reason: `"x" is no port`}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dubbo.Parse([]byte(tc.yaml))
			var ce *dubbo.ConfigError
			if !errors.As(err, &ce) || c != nil || *ce != tc.want {
				t.Errorf("%#v\nwant\n%#v", err, &tc.want)
			}
		})
	}
	e := &dubbo.ConfigError{File: "application.yaml", Path: "dubbo.protocols.d.port", Line: 4, Reason: "no port"}
	if got, want := e.Error(), "dubbo: application.yaml: line 4: dubbo.protocols.d.port: no port"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// IDs are taken as they are.
func TestIDsKeepTheirSpelling(t *testing.T) {
	c, err := dubbo.Parse([]byte("dubbo: {protocols: {a-b: {port: 1}, AB: {port: 2}, ab: {port: 3}}}"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []dubbo.Protocol{{"a-b", "0.0.0.0", 1}, {"AB", "0.0.0.0", 2}, {"ab", "0.0.0.0", 3}}; !reflect.DeepEqual(c.Protocols, want) {
		t.Errorf("%v", c.Protocols)
	}
}

// Whatever the text is, Parse returns, and what it says is wrong has a line of the text.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "application.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("dubbo: &d {<<: [*d, *d]}")
	f.Add("dubbo: {protocols: {p: {name: x}}}\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := dubbo.Parse([]byte(text))
		var ce *dubbo.ConfigError
		if (c == nil) == (err == nil) || err != nil && !errors.As(err, &ce) {
			t.Fatalf("%v, %v", c, err)
		}
		if ce != nil && (ce.Line < 0 || ce.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+strings.Count(text, "\u0085")+strings.Count(text, "\u2028")+strings.Count(text, "\u2029")+2 || ce.Reason == "") {
			t.Errorf("%#v", ce)
		}
	})
}
