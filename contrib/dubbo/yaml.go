package dubbo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parse reads the YAML of a file.
func parse(file string, text []byte) (*Config, error) {
	d := &decoder{lines: map[string]int{}}
	if err := d.document(text); err != nil {
		err.File = file
		return nil, err
	}
	c := &d.config
	for i := range c.Services {
		c.Services[i].Protocols = c.protocolIDs(c.Services[i].Protocols)
	}
	if err := c.validate(); err != nil {
		err.File, err.Line = file, d.line(err.Path)
		return nil, err
	}
	return c, nil
}

// A decoder makes a Config of YAML. Its methods stop at the first mistake, which is in err.
type decoder struct {
	config Config
	lines  map[string]int // where the keys are, by path
	err    *ConfigError
}

// An entry is one key of a mapping, with its value.
type entry struct {
	path string // of the key
	word string // the key as all its spellings have it
	key  string
	line int
	node *yaml.Node // the value, which is no alias
}

// syntaxLine finds the line in an error of package yaml, which has it in its text alone.
var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// document reads the one document of a text.
func (d *decoder) document(text []byte) *ConfigError {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil // nothing, or comments: all defaults
	}
	if err == nil {
		d.root(entry{line: doc.Line, node: resolve(doc.Content[0])})
		if err = dec.Decode(&more); err == nil {
			return &ConfigError{Line: more.Line, Reason: "a second YAML document"}
		}
	}
	if d.err == nil && !errors.Is(err, io.EOF) {
		m := syntaxLine.FindStringSubmatch(err.Error())
		d.err = &ConfigError{Reason: "no YAML: " + err.Error()}
		if m != nil {
			d.err.Line, _ = strconv.Atoi(m[1]) // 0 where it has none
			d.err.Reason = "no YAML: " + err.Error()[len(m[0]):]
		}
	}
	return d.err
}

// resolve follows aliases. Those of YAML never name each other in a circle.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func (d *decoder) root(at entry) {
	for _, e := range d.entries(at) {
		switch e.word {
		case "dubbo":
			d.dubbo(e)
		case "logging": // where dubbo-rust has it
			d.logging(e)
		default:
			d.unknown(e)
		}
	}
}

func (d *decoder) dubbo(at entry) {
	for _, e := range d.entries(at) {
		switch e.word {
		case "protocols":
			for _, e := range d.ids(e) {
				d.protocol(e)
			}
		case "provider":
			d.provider(e)
		case "consumer":
			d.consumer(e)
		case "logging", "logger":
			d.logging(e)
		case "registries":
			d.warn(e, "no effect: there is no discovery, servers are not registered and clients dial addresses")
		case "router", "routers":
			d.warn(e, "no effect: there is no routing, a client dials one address")
		default:
			d.unknown(e)
		}
	}
}

func (d *decoder) protocol(at entry) {
	p := Protocol{ID: at.key, IP: DefaultIP, Port: DefaultPort}
	for _, e := range d.entries(at) {
		switch e.word {
		case "ip":
			p.IP = d.text(e)
		case "port":
			p.Port = d.port(e)
		case "name":
			d.protocolName(e)
		default:
			d.unknown(e)
		}
	}
	d.config.Protocols = append(d.config.Protocols, p)
}

func (d *decoder) provider(at entry) {
	for _, e := range d.entries(at) {
		switch e.word {
		case "services":
			for _, e := range d.ids(e) {
				d.service(e)
			}
		default:
			d.unknown(e)
		}
	}
}

func (d *decoder) service(at entry) {
	s := Service{ID: at.key}
	for _, e := range d.entries(at) {
		switch e.word {
		case "interface":
			s.Interface = d.text(e)
		case "version":
			s.Version = d.text(e)
		case "group":
			s.Group = d.text(e)
		case "protocol", "protocolids": // dubbo-rust's and dubbo-go's
			d.lines[at.path+".protocol"] = e.line
			s.Protocols = append(s.Protocols, d.texts(e)...)
		case "tag":
			d.warn(e, "no effect: there is no routing by tags")
		default:
			d.unknown(e)
		}
	}
	d.config.Services = append(d.config.Services, s)
}

func (d *decoder) consumer(at entry) {
	for _, e := range d.entries(at) {
		switch e.word {
		case "references":
			for _, e := range d.ids(e) {
				d.reference(e)
			}
		default:
			d.unknown(e)
		}
	}
}

func (d *decoder) reference(at entry) {
	r := Reference{ID: at.key}
	for _, e := range d.entries(at) {
		switch e.word {
		case "interface":
			r.Interface = d.text(e)
		case "version":
			r.Version = d.text(e)
		case "group":
			r.Group = d.text(e)
		case "url":
			r.URL = d.text(e)
		case "protocol":
			d.protocolName(e)
		default:
			d.unknown(e)
		}
	}
	d.config.References = append(d.config.References, r)
}

// levels are those of Dubbo's programs.
var levels = map[string]slog.Level{
	"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo,
	"warn": slog.LevelWarn, "warning": slog.LevelWarn, "error": slog.LevelError,
}

func (d *decoder) logging(at entry) {
	for _, e := range d.entries(at) {
		if e.word != "level" {
			d.unknown(e)
			continue
		}
		text := d.text(e)
		level, ok := levels[strings.ToLower(text)]
		if !ok && text != "" {
			d.fail(e, "%q is no level: trace, debug, info, warn and error are", text)
		}
		d.config.LogLevel = level
	}
}

// isTriple reports whether a protocol's name is one of those that Triple has.
func isTriple(name string) bool { return name == "tri" || name == "triple" }

// protocolName checks the name of a protocol: there is only one.
func (d *decoder) protocolName(e entry) {
	if name := d.text(e); name != "" && !isTriple(name) {
		d.fail(e, "there is no protocol %q: tri and triple mean Triple, and there is no other", name)
	}
}

// protocolIDs makes IDs of what a service calls its protocols: their IDs or, with a name of
// Triple, all.
func (c *Config) protocolIDs(words []string) []string {
	for _, word := range words {
		isID := slices.ContainsFunc(c.Protocols, func(p Protocol) bool { return p.ID == word })
		if !isID && isTriple(word) {
			return nil
		}
	}
	return words
}

// port reads a port, which is a number or a text.
func (d *decoder) port(e entry) int {
	text := d.text(e)
	if text == "" {
		return DefaultPort
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		d.fail(e, "%q is no port", text)
	}
	return int(n)
}

// texts reads a text, with commas between its parts, or a list of them.
func (d *decoder) texts(e entry) (all []string) {
	if e.node.Kind != yaml.SequenceNode {
		for part := range strings.SplitSeq(d.text(e), ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
		return all
	}
	for _, n := range e.node.Content {
		e.node = resolve(n)
		all = append(all, d.text(e))
	}
	return all
}

// text reads a text, number or nothing.
func (d *decoder) text(e entry) string {
	switch {
	case e.node.Kind != yaml.ScalarNode:
		d.fail(e, "must be a text")
	case e.node.Tag == "!!null":
	case strings.HasPrefix(e.node.Value, "${"):
		d.fail(e, "%s: placeholders are not replaced", e.node.Value)
	default:
		return e.node.Value
	}
	return ""
}

// maxMerges is how many mappings may be merged inside each other.
const maxMerges = 8

// entries returns what a mapping of keys has, whose words are those of any spelling. It returns
// nothing after the first mistake.
func (d *decoder) entries(at entry) []entry { return d.collect(nil, at, at.node, maxMerges, spelling) }

// ids is entries for a mapping whose keys are IDs.
func (d *decoder) ids(at entry) []entry {
	return d.collect(nil, at, at.node, maxMerges, func(id string) string { return id })
}

// spelling is what the spellings of a key have in common: dubbo-go compares without regard to
// case, and has hyphens and underscores between words.
func spelling(key string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(key))
}

// collect appends the entries of a mapping, and then of those that are merged into it. What is
// there already stays.
func (d *decoder) collect(all []entry, at entry, n *yaml.Node, merges int, word func(string) string) []entry {
	switch {
	case d.err != nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return all
	case n.Kind != yaml.MappingNode:
		d.fail(at, "must be a mapping")
		return nil
	case merges == 0:
		d.fail(at, "more than %d mappings are merged inside each other", maxMerges)
		return nil
	}
	from := len(all)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], resolve(n.Content[i+1])
		if k.Tag == "!!merge" {
			merged = append(merged, v)
			continue
		}
		e := entry{path: strings.TrimPrefix(at.path+"."+k.Value, "."), word: word(k.Value), key: k.Value, line: k.Line, node: v}
		j := slices.IndexFunc(all, func(old entry) bool { return old.word == e.word })
		if j >= from {
			d.fail(e, "was given in line %d before", all[j].line)
			return nil
		}
		if j < 0 {
			d.lines[e.path] = e.line
			all = append(all, e)
		}
	}
	for _, m := range merged {
		one := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			one = m.Content
		}
		for _, m := range one {
			all = d.collect(all, at, resolve(m), merges-1, word)
		}
	}
	return all
}

// line returns the line of a key, or of what it would be in.
func (d *decoder) line(path string) int {
	for path != "" {
		if n, ok := d.lines[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexByte(path, '.'), 0)]
	}
	return 0
}

func (d *decoder) unknown(e entry) { d.warn(e, "unknown key") }

func (d *decoder) warn(e entry, text string) {
	d.config.Warnings = append(d.config.Warnings, Warning{Path: e.path, Line: e.line, Text: text})
}

// fail notes the first mistake.
func (d *decoder) fail(e entry, format string, args ...any) {
	if d.err == nil {
		d.err = &ConfigError{Path: e.path, Line: e.line, Reason: fmt.Sprintf(format, args...)}
	}
}
