package admin

import "strconv"

// A view is a page at one moment, before it is HTML, text or JSON.
type view struct {
	Title   string
	Lead    []line // what the page says in a sentence
	Figures []figure
	Filter  *filter
	Tables  []table
	Actions []action
	data    func() any // what JSON says beside schema, page and at
	path    string
	footer  string
}

// A line is a sentence with a class: "", "good", "warn" or "bad".
type line struct {
	Text  string `json:"t"`
	Href  string `json:"h,omitempty"`
	Class string `json:"c,omitempty"`
}

// A figure is one number that is worth a look from afar.
type figure struct {
	Key   string `json:"-"`
	Name  string `json:"-"`
	Value string `json:"v"`
	Note  string `json:"n"`
	Class string `json:"c"`
	Spark string `json:"s"` // the points of its last minute; empty: it has no past
}

// A table has rows that keep their keys from one view to the next.
type table struct {
	Key, Title, Note string
	Columns          []column
	Rows             []row
	Empty            string // what is said of no rows
	More             []link
}

// A column is a table's.
type column struct {
	Name  string
	Help  string
	Sort  string // the link that sorts by it; empty: there is none
	Class string // "n": figures; "t": text; "w": text of any length
	Width int    // in characters
	Is    string // "descending" or "ascending": the table is sorted by it
}

// Pixels is a column's width. All of a table's are fixed, so that nothing moves when a figure
// changes.
func (c column) Pixels() int { return 12 + 7*c.Width }

// Pixels is the least width of the table.
func (t table) Pixels() (n int) {
	for _, c := range t.Columns {
		n += c.Pixels()
	}
	return n
}

// A row is a table's.
type row struct {
	Key   string
	Cells []cell
}

// A cell is a row's.
type cell struct {
	Text  string `json:"t"`
	Href  string `json:"h,omitempty"`
	Class string `json:"c,omitempty"`
}

// A link leads to another page.
type link struct{ Text, Href string }

// A filter is the form above a table.
type filter struct {
	Hidden  []field
	Search  field
	Choices []choice
	Clear   string // the link that clears it; empty: nothing is set
}

type field struct{ Name, Value, Hint string }

type choice struct {
	Name, Label string
	Options     []option
}

type option struct {
	Value, Label string
	Selected     bool
}

// An action is something that changes the program, behind a second click.
type action struct {
	Name, Label, Note string // Name is the last part of its path
	Fields            []field
	Inputs            []field
}

// finish gives cells the classes of their columns.
func (v *view) finish() *view {
	for _, t := range v.Tables {
		for _, r := range t.Rows {
			for i := range r.Cells {
				if c := &r.Cells[i]; c.Class == "" {
					c.Class = t.Columns[i].Class
				} else {
					c.Class = t.Columns[i].Class + " " + c.Class
				}
			}
		}
	}
	return v
}

func text(s string) cell { return cell{Text: s} }

func linked(s, href string) cell { return cell{Text: s, Href: href} }

// dim is a cell that stands back when it says nothing.
func dim(s string, nothing bool) cell {
	if nothing {
		return cell{Text: s, Class: "dim"}
	}
	return cell{Text: s}
}

// number is a figure that stands back when it is 0.
func number[T int | int64 | uint64](n T) cell { return dim(count(n), n == 0) }

// bytes is the same for bytes.
func bytes[T int | int64 | uint64](n T) cell { return dim(size(float64(n)), n == 0) }

// perSecond is the same for what happens in a second.
func perSecond(v float64) cell { return dim(rate(v), v <= 0) }

// facts makes a table of names, values and what they mean.
func facts(key, title string, rows ...row) table {
	return table{Key: key, Title: title, Columns: []column{
		{Name: "figure", Class: "t", Width: 24}, {Name: "value", Class: "t", Width: 34}, {Name: "meaning", Class: "w", Width: 60},
	}, Rows: rows}
}

// fact is a row of facts.
func fact(name string, value cell, meaning string) row {
	return row{Key: name, Cells: []cell{text(name), value, {Text: meaning, Class: "dim"}}}
}

// points writes a figure's past as the points of a line, 60 wide and 16 high.
func points(values []float64) string {
	if len(values) < 2 {
		return ""
	}
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	b := make([]byte, 0, 8*len(values))
	for i, v := range values {
		x, y := pastLength-len(values)+i, 15.0
		if most > 0 {
			y = 15 - 14*max(v, 0)/most
		}
		b = strconv.AppendInt(b, int64(x), 10)
		b = append(b, ',')
		b = strconv.AppendFloat(b, y, 'f', 1, 64)
		b = append(b, ' ')
	}
	return string(b[:len(b)-1])
}
