package arch

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReadingOrder wants the files of a package to read from the top down: to
// have an order in which few files use what an earlier one defines. With -v it
// prints the order, what runs against it, and what would help.
func TestReadingOrder(t *testing.T) {
	var dirs []string
	for dir := range backward {
		if exists(t, dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	programs := loadPrograms(t, dirs...)
	for _, dir := range dirs {
		t.Run(dir, func(t *testing.T) {
			g := graphOf(programs[dir])
			order := g.order()
			report(t, checkOrder(dir, g.share(order), backward))
			if testing.Verbose() {
				t.Log(g.describe(order))
			}
		})
	}
}

// checkOrder compares the share of backward arrows, in percent, with the table.
func checkOrder(dir string, share float64, table map[string]float64) []string {
	limit := table[dir]
	switch {
	case limit < maxBackward:
		return []string{fmt.Sprintf("backward: %s: the limit is never below %d", dir, maxBackward)}
	case share > limit:
		return []string{fmt.Sprintf("%s: in the best reading order %.1f %% of the arrows between files run back, at most %.1f; see go test ./internal/arch -run ReadingOrder -v",
			dir, share, limit)}
	case limit > maxBackward && share < limit-1:
		return []string{fmt.Sprintf("backward: %s: lower the limit to %.1f, it is %.1f", dir, max(share, maxBackward), limit)}
	}
	return nil
}

// A graph says which declarations of a package use which.
type graph struct {
	files  []string
	public []int // exported names for each file
	decls  []declaration
	arrows [][]int // how many uses there are, from file to file
}

// A declaration is a function, a type with its fields, a variable, or a group
// of constants. Only uses of and by other declarations are in it.
type declaration struct {
	name string
	file int
	pos  token.Pos
	end  token.Pos
	uses map[int][]string // the names, for each declaration that is used
	used map[int]bool     // by these declarations
}

func graphOf(p *program) *graph {
	g := &graph{}
	for i, f := range p.files {
		g.files = append(g.files, filepath.Base(p.fset.Position(f.Package).Filename))
		g.public = append(g.public, 0)
		for _, d := range f.Decls {
			g.declare(i, d)
		}
	}
	slices.SortFunc(g.decls, func(a, b declaration) int { return cmp.Compare(a.pos, b.pos) })
	for id, obj := range p.info.Defs {
		if obj != nil && obj.Exported() && obj.Parent() == p.pkg.Scope() {
			g.public[g.decls[g.at(id.Pos())].file]++
		}
	}
	for id, obj := range p.info.Uses {
		if obj.Pkg() != p.pkg || !obj.Pos().IsValid() {
			continue
		}
		if from, to := g.at(id.Pos()), g.at(obj.Pos()); from >= 0 && to >= 0 && from != to {
			g.use(from, to, obj.Name())
		}
	}
	g.arrows = make([][]int, len(g.files))
	for i := range g.arrows {
		g.arrows[i] = make([]int, len(g.files))
	}
	for i := range g.decls {
		g.count(i, 1)
	}
	return g
}

func (g *graph) declare(file int, d ast.Decl) {
	add := func(name string, n ast.Node) {
		g.decls = append(g.decls, declaration{
			name: name, file: file, pos: n.Pos(), end: n.End(),
			uses: map[int][]string{}, used: map[int]bool{},
		})
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		add(functionName(d), d)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				add(s.Name.Name, s)
			case *ast.ValueSpec:
				if d.Tok == token.CONST { // iota holds the group together
					add(s.Names[0].Name, d)
					return
				}
				add(s.Names[0].Name, s)
			}
		}
	}
}

// at finds the declaration around a position, -1 if there is none.
func (g *graph) at(pos token.Pos) int {
	i, found := slices.BinarySearchFunc(g.decls, pos, func(d declaration, p token.Pos) int { return cmp.Compare(d.pos, p) })
	if !found {
		i--
	}
	if i < 0 || pos >= g.decls[i].end {
		return -1
	}
	return i
}

func (g *graph) use(from, to int, name string) {
	if d := g.decls[to].name; d == name || strings.HasSuffix(d, "."+name) {
		name = d
	} else { // a field, a method of an interface, a constant of a group
		name = d + "." + name
	}
	if names := g.decls[from].uses[to]; !slices.Contains(names, name) {
		g.decls[from].uses[to] = append(names, name)
	}
	g.decls[to].used[from] = true
}

// count adds the uses of and by a declaration to the arrows, or takes them
// away. A use between two declarations is counted where the user is.
func (g *graph) count(decl, sign int) {
	for to := range g.decls[decl].uses {
		g.arrows[g.decls[decl].file][g.decls[to].file] += sign
	}
}

// order finds an order of the files with as few backward arrows as possible.
// Among the best the one wins with the fewest uses behind these arrows, then the
// one with the exported names further up. The search starts at random, many
// times, with a fixed seed: it always finds the same.
func (g *graph) order() []int {
	const starts = 100
	cost := g.costs()
	random := rand.New(rand.NewPCG(1, 2))
	var best []int
	var least int64
	for range starts {
		order := random.Perm(len(g.files))
		for improve(order, cost) {
		}
		if sum := total(order, cost); best == nil || sum < least {
			best, least = order, sum
		}
	}
	return best
}

// costs says for each two files what it costs to have the first before the
// second: the arrow back, if there is one, far less for each use behind it, and
// far less again for each exported name that comes later for it.
func (g *graph) costs() [][]int64 {
	const arrow, use = 1 << 40, 1 << 20
	cost := make([][]int64, len(g.files))
	for a := range cost {
		cost[a] = make([]int64, len(g.files))
		for b := range cost[a] {
			uses := g.arrows[b][a]
			cost[a][b] = int64(g.public[b]) + use*int64(uses)
			if uses > 0 {
				cost[a][b] += arrow
			}
		}
	}
	return cost
}

// improve moves one file after the other to its best place, and reports
// whether any moved.
func improve(order []int, cost [][]int64) (moved bool) {
	for from := range order {
		file := order[from]
		best, to := int64(0), from
		for change, i := int64(0), from-1; i >= 0; i-- {
			change += cost[file][order[i]] - cost[order[i]][file]
			if change < best {
				best, to = change, i
			}
		}
		for change, i := int64(0), from+1; i < len(order); i++ {
			change += cost[order[i]][file] - cost[file][order[i]]
			if change < best {
				best, to = change, i
			}
		}
		switch {
		case to < from:
			copy(order[to+1:from+1], order[to:from])
		case to > from:
			copy(order[from:to], order[from+1:to+1])
		default:
			continue
		}
		order[to], moved = file, true
	}
	return moved
}

func total(order []int, cost [][]int64) (sum int64) {
	for i, a := range order {
		for _, b := range order[i+1:] {
			sum += cost[a][b]
		}
	}
	return sum
}

// back counts the arrows that run back in an order, and all.
func (g *graph) back(order []int) (back, all int) {
	for i, a := range order {
		for j, b := range order {
			if a != b && g.arrows[a][b] > 0 {
				all++
				if j < i {
					back++
				}
			}
		}
	}
	return back, all
}

// share is the share of arrows that run back, in percent.
func (g *graph) share(order []int) float64 {
	back, all := g.back(order)
	return 100 * float64(back) / float64(max(all, 1))
}

// describe says what an order is like, and what would make it better.
func (g *graph) describe(order []int) string {
	var text strings.Builder
	back, all := g.back(order)
	fmt.Fprintf(&text, "%d files, %d arrows, %d run back: %.1f %%\n", len(g.files), all, back, g.share(order))
	text.WriteString("in reading order, with the arrows back from the file and to it:\n")
	for i, a := range order {
		var from, to int
		for j, b := range order {
			if j < i && g.arrows[a][b] > 0 {
				from++
			}
			if i < j && g.arrows[b][a] > 0 {
				to++
			}
		}
		fmt.Fprintf(&text, "  %-20s %3d from %3d to\n", g.files[a], from, to)
	}
	text.WriteString("arrows back, with the names used:\n")
	for _, line := range g.backNames(order) {
		text.WriteString("  " + line + "\n")
	}
	text.WriteString("declarations that would save arrows back in another file:\n")
	for _, line := range g.moves(order) {
		text.WriteString("  " + line + "\n")
	}
	return text.String()
}

// backNames lists the arrows that run back, those that hang on the fewest names
// first.
func (g *graph) backNames(order []int) (lines []string) {
	type arrow struct{ from, to int }
	names := map[arrow][]string{}
	for _, d := range g.decls {
		for to, used := range d.uses {
			a := arrow{d.file, g.decls[to].file}
			if slices.Index(order, a.to) < slices.Index(order, a.from) {
				names[a] = append(names[a], used...)
			}
		}
	}
	for a, used := range names {
		slices.Sort(used)
		used = slices.Compact(used)
		lines = append(lines, fmt.Sprintf("%2d names: %s -> %s: %s", len(used), g.files[a.from], g.files[a.to], first(10, used)))
	}
	slices.Sort(lines)
	return lines
}

// first joins at most n of the names.
func first(n int, names []string) string {
	if len(names) > n {
		return strings.Join(names[:n], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// moves tries every declaration, and every type with its methods, in every
// other file, and lists the 20 that save the most arrows back in this order,
// with the files where they do.
func (g *graph) moves(order []int) (lines []string) {
	before, _ := g.back(order)
	type move struct {
		what  string
		saved int
		to    []string
	}
	var moves []move
	for i := range g.decls {
		from, group := g.decls[i].file, append([]int{i}, g.methods(i)...)
		best := move{what: g.decls[i].name, saved: 1}
		if len(group) > 1 {
			best.what += " with its methods"
		}
		best.what += " from " + g.files[from]
		for to, name := range g.files {
			g.move(group, to)
			after, _ := g.back(order)
			switch saved := before - after; {
			case saved > best.saved:
				best.saved, best.to = saved, []string{name}
			case saved == best.saved:
				best.to = append(best.to, name)
			}
		}
		g.move(group, from)
		if len(best.to) > 0 {
			moves = append(moves, best)
		}
	}
	slices.SortStableFunc(moves, func(a, b move) int { return b.saved - a.saved })
	for _, m := range moves[:min(len(moves), 20)] {
		lines = append(lines, fmt.Sprintf("%2d saved: %s to %s", m.saved, m.what, first(6, m.to)))
	}
	return lines
}

// methods finds those methods of a type that are declared in its file.
func (g *graph) methods(decl int) (found []int) {
	name := g.decls[decl].name
	for i, d := range g.decls {
		receiver, _, ok := strings.Cut(d.name, ".")
		if ok && d.file == g.decls[decl].file && strings.Trim(receiver, "(*)") == name {
			found = append(found, i)
		}
	}
	return found
}

// move puts declarations of one file into another.
func (g *graph) move(group []int, file int) {
	for _, i := range group {
		g.count(i, -1)
		for user := range g.decls[i].used {
			g.arrows[g.decls[user].file][g.decls[i].file]--
		}
		g.decls[i].file = file
		g.count(i, 1)
		for user := range g.decls[i].used {
			g.arrows[g.decls[user].file][file]++
		}
	}
}
