package dubbo

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// ConfigPathEnv is the environment variable that says where Load finds the YAML, and
// DefaultConfigPath where it looks if that is not set or empty.
const (
	ConfigPathEnv     = "DUBBO_CONFIG_PATH"
	DefaultConfigPath = "application.yaml"
)

// DefaultIP and DefaultPort are where a protocol listens whose YAML does not say.
const (
	DefaultIP   = "0.0.0.0"
	DefaultPort = 8888
)

// A Config is what the YAML says. Its slices have the order of the text. A program can also make
// one itself.
type Config struct {
	// Protocols are where the server listens. None is one protocol, with the defaults.
	Protocols []Protocol
	// Services are what is known of services. A service that is not among them is served by
	// every protocol, whatever version and group its callers name.
	Services []Service
	// References are what is known of services that the program calls.
	References []Reference
	// LogLevel is that of "logging.level". It is for the program: loggers are its own, and Start
	// does not use it.
	LogLevel slog.Level
	// Warnings are about keys that have no effect. Start logs them.
	Warnings []Warning
}

// A Protocol is an address to listen on: "dubbo.protocols.ID".
type Protocol struct {
	ID   string
	IP   string // an address or a name of this machine; "": every address
	Port int    // 0: a free one
}

// A Service is "dubbo.provider.services.ID".
type Service struct {
	ID        string
	Interface string // the service's name in methods, such as "org.apache.dubbo.sample.tri.Greeter"
	// Version and Group, if not empty, are what the callers must name: see Check.
	Version, Group string
	// Protocols are the IDs of the protocols that serve it. None is all of them.
	Protocols []string
}

// A Warning is about a key of the YAML that has no effect.
type Warning struct {
	Path string // of the key, such as "dubbo.provider.services.GreeterProvider.typo"
	Line int    // in the text, from 1 on
	Text string // what is the matter, such as "unknown key"
}

// String returns the path, the line and the text.
func (w Warning) String() string { return fmt.Sprintf("%s (line %d): %s", w.Path, w.Line, w.Text) }

// A ConfigError is a mistake in a configuration.
type ConfigError struct {
	File   string // where it was read; "": it was not read from a file
	Path   string // of the key, such as "dubbo.protocols.triple.port"; "": the text is no YAML
	Line   int    // in the text, from 1 on; 0: not known
	Reason string // for people
}

// Error returns the file, the line, the path and the reason.
func (e *ConfigError) Error() string {
	var b strings.Builder
	b.WriteString("dubbo: ")
	if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	return b.String() + e.Reason
}

// Load reads the YAML of the file that the environment variable ConfigPathEnv names, or else of
// DefaultConfigPath. Errors: a *ConfigError, or why the file can't be read.
func Load() (*Config, error) {
	path := os.Getenv(ConfigPathEnv)
	if path == "" {
		path = DefaultConfigPath
	}
	return LoadFile(path)
}

// LoadFile reads the YAML of a file. Its errors are those of Load.
func LoadFile(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("dubbo: read the configuration: %w", err)
	}
	return parse(path, text)
}

// Parse reads YAML. The error is a *ConfigError.
func Parse(text []byte) (*Config, error) { return parse("", text) }

// Reference returns the reference with an ID.
func (c *Config) Reference(id string) (Reference, bool) {
	for _, r := range c.References {
		if r.ID == id {
			return r, true
		}
	}
	return Reference{}, false
}

// validate returns what is wrong beyond the form, without file and line.
func (c *Config) validate() *ConfigError {
	var ids []string
	for _, p := range c.Protocols {
		path := "dubbo.protocols." + p.ID
		switch {
		case slices.Contains(ids, p.ID):
			return &ConfigError{Path: path, Reason: "a second protocol of this ID"}
		case p.Port < 0 || p.Port > 65_535:
			return &ConfigError{Path: path + ".port", Reason: fmt.Sprintf("%d is no port", p.Port)}
		}
		ids = append(ids, p.ID)
	}
	for _, s := range c.Services {
		path := "dubbo.provider.services." + s.ID
		if s.Interface == "" {
			return &ConfigError{Path: path + ".interface", Reason: "the service's name is missing"}
		}
		for _, id := range s.Protocols {
			if !slices.Contains(ids, id) {
				return &ConfigError{Path: path + ".protocol", Reason: fmt.Sprintf("there is no protocol %q", id)}
			}
		}
	}
	return nil
}
