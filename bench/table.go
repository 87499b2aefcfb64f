package main

import (
	"fmt"
	"io"
	"strings"
)

// column is one quantity of a table. Format is how a value is written.
type column struct {
	Name   string `json:"name"`
	Format string `json:"-"`
}

// table is what a suite found with one setting.
type table struct {
	Suite string `json:"suite"`
	setting
	Task       string     `json:"task"`
	LoadBefore float64    `json:"load_average_before"`
	LoadAfter  float64    `json:"load_average_after"`
	Columns    []column   `json:"columns"`
	Rows       []row      `json:"rows"`
	Ratios     []quotient `json:"ratios"`
}

// row has a summary for each column.
type row struct {
	Name   string    `json:"name"`
	Values []summary `json:"values"`
}

// quotient is one row by another, round by round, for each column.
type quotient struct {
	comparedRows
	Values []summary `json:"values"`
}

// comparedRows names the rows of a quotient and the goal of its median.
type comparedRows struct {
	Name string `json:"name"`
	A    string `json:"row"`
	B    string `json:"by_row"`
	Goal goal   `json:"goal"`
}

// goal bounds a median from one side; the zero goal does not.
type goal struct {
	AtLeast float64 `json:"at_least,omitzero"`
	AtMost  float64 `json:"at_most,omitzero"`
}

func (g goal) String() string {
	switch {
	case g.AtLeast > 0:
		return fmt.Sprintf("≥ %.2f", g.AtLeast)
	case g.AtMost > 0:
		return fmt.Sprintf("≤ %.2f", g.AtMost)
	}
	return "none"
}

// verdict holds the median of s to the goal.
func (g goal) verdict(s summary) string {
	text := s.format("%.2f")
	switch {
	case g == goal{}:
		return text
	case g.AtLeast > 0 && s.Median < g.AtLeast, g.AtMost > 0 && s.Median > g.AtMost:
		return text + " missed"
	}
	return text + " met"
}

// rounds are the values of a suite: a list for each row, with one value for
// each column and round. Those of equal index were taken right after each other.
type rounds struct {
	names  []string // in the order of their first value
	values map[string][][]float64
}

// add takes one round's values of a row.
func (r *rounds) add(name string, values ...float64) {
	if r.values == nil {
		r.values = map[string][][]float64{}
	}
	if r.values[name] == nil {
		r.names = append(r.names, name)
	}
	r.values[name] = append(r.values[name], values)
}

// column returns the values of one column of a row.
func (r *rounds) column(name string, i int) []float64 {
	list := make([]float64, len(r.values[name]))
	for n, values := range r.values[name] {
		list[n] = values[i]
	}
	return list
}

// fill computes rows and ratios.
func (t *table) fill(r *rounds, compared []comparedRows) {
	for _, name := range r.names {
		x := row{Name: name}
		for i := range t.Columns {
			x.Values = append(x.Values, summarize(r.column(name, i)))
		}
		t.Rows = append(t.Rows, x)
	}
	for _, c := range compared {
		q := quotient{comparedRows: c}
		for i := range t.Columns {
			q.Values = append(q.Values, paired(r.column(c.A, i), r.column(c.B, i)))
		}
		t.Ratios = append(t.Ratios, q)
	}
}

// print writes the table as text.
func (t *table) print(w io.Writer) error {
	var b, cells strings.Builder
	fmt.Fprintf(&b, "\n== %s, %s (load average %.1f before, %.1f after)\n%s\n\n", t.Suite, t.setting, t.LoadBefore, t.LoadAfter, t.Task)
	heading := func(first string) {
		cells.WriteString(first)
		for _, c := range t.Columns {
			cells.WriteString("\t" + c.Name)
		}
		cells.WriteByte('\n')
	}
	heading("what")
	for _, x := range t.Rows {
		cells.WriteString(x.Name)
		for i, s := range x.Values {
			cells.WriteString("\t" + s.format(t.Columns[i].Format))
		}
		cells.WriteByte('\n')
	}
	if err := align(&b, cells.String()); err != nil {
		return err
	}
	cells.Reset()
	b.WriteByte('\n')
	heading("ratio, round by round\tgoal")
	for _, x := range t.Ratios {
		fmt.Fprintf(&cells, "%s\t%s", x.Name, x.Goal)
		for _, s := range x.Values {
			cells.WriteString("\t" + x.Goal.verdict(s))
		}
		cells.WriteByte('\n')
	}
	if err := align(&b, cells.String()); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}
