package report

import (
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/bench"
)

// plot is a chart in a file of its own.
type plot struct {
	bench string // the section that shows it
	name  string
	title string
	svg   []byte
}

func (p plot) path() string { return "plots/" + p.name + ".svg" }

// draw makes all plots that there are results for.
func draw(m measured) []plot {
	plots := stormPlots(m)
	cpu := bars{title: "CPU of the server for one call", axis: "CPU time, logarithmic", unit: duration}
	if cpu.fill(m.like(bench.Case{Bench: "race"}), bench.CPUPerCall) {
		plots = append(plots, plot{"race", "cpu-per-call", cpu.title, cpu.draw()})
	}
	guest := bars{title: "Calls answered in a guest", axis: "calls in a second, logarithmic", unit: perSecond}
	if guest.fill(m.like(bench.Case{Bench: "guest"}), bench.CallsPerSecond) {
		plots = append(plots, plot{"guest", "guest-calls", guest.title, guest.draw()})
	}
	flat := lines{title: "Cost of a call by the size of the tree", x: "objects in the tree", y: "CPU of the server for one call", unit: duration}
	byObjects := m.like(bench.Case{Bench: "store", Server: ours}).where(func(r bench.Result) bool {
		return r.Objects > 0 && slices.Contains(callWorks(), r.Work)
	})
	if flat.fill(byObjects, workAndStreams, objects, secondsPerCall) {
		plots = append(plots, plot{"store", "cost-by-objects", flat.title, flat.draw()})
	}
	return plots
}

func stormPlots(m measured) (plots []plot) {
	storms := m.where(func(r bench.Result) bool { return r.Bench == "storm" && r.Nodes > 0 })
	keys, of := groups(storms, func(c bench.Case) bench.Case {
		c.Server, c.Nodes, c.Objects = "", 0, 0
		return c
	})
	for _, c := range keys {
		about := circumstances(c)
		if c.Connections > 1 { // of each node
			about += ", " + setting(c)
		}
		l := lines{title: "Time to boot: " + about, x: "nodes that boot at once", y: "time until the last has booted", unit: duration}
		if l.fill(of[c], server, nodes, bench.Seconds) {
			plots = append(plots, plot{"storm", "storm-" + slug(about), l.title, l.draw()})
		}
	}
	return plots
}

// callWorks are the works that consist of calls of one kind.
func callWorks() []string { return workOrder[:slices.Index(workOrder, "READDIRPLUS walk")] }

func work(c bench.Case) string   { return c.Work }
func server(c bench.Case) string { return c.Server }
func nodes(c bench.Case) int     { return c.Nodes }
func objects(c bench.Case) int   { return c.Objects }

// workAndStreams tells the lines of one server apart.
func workAndStreams(c bench.Case) string {
	if c.Connections > 0 {
		return c.Work + ", " + streams(c)
	}
	return c.Work
}

// fill takes the figure of each result as a sample of the line called name. It
// reports whether there is anything to draw.
func (l *lines) fill(m measured, name func(bench.Case) string, x func(bench.Case) int, f bench.Figure) bool {
	l.samples = make(map[string][]sample)
	for _, r := range m {
		if s := bench.Summarize(r.Runs, f); drawable(s) {
			l.samples[name(r.Case)] = append(l.samples[name(r.Case)], sample{x(r.Case), s})
		}
	}
	for name, samples := range l.samples {
		l.names = append(l.names, name)
		slices.SortStableFunc(samples, func(a, b sample) int { return a.x - b.x })
	}
	slices.SortFunc(l.names, func(a, b string) int { return compareListed(serverOrder, a, b) })
	return len(l.names) > 0
}

// fill takes the figure of each result of the setting that most was measured in.
// It reports whether there is anything to draw.
func (b *bars) fill(m measured, f bench.Figure) bool {
	m = m.where(func(r bench.Result) bool {
		return !r.Cold && r.RTT == 0 && slices.Contains(callWorks(), r.Work) && drawable(bench.Summarize(r.Runs, f))
	})
	keys, of := groups(m, setting)
	if len(keys) == 0 {
		return false
	}
	common := slices.MaxFunc(keys, func(a, b string) int { return len(of[a]) - len(of[b]) })
	for _, key := range keys {
		if strings.HasPrefix(key, "4 × 16") { // what most goals are about
			common = key
		}
	}
	if common != "" {
		b.title += ", " + common + " (connections × in flight)"
	}
	works, ofWork := groups(of[common], work)
	for _, w := range works {
		g := barGroup{name: w}
		for _, r := range ofWork[w] {
			g.bars = append(g.bars, bar{r.Server, bench.Summarize(r.Runs, f)})
			if !slices.Contains(b.servers, r.Server) {
				b.servers = append(b.servers, r.Server)
			}
		}
		b.groups = append(b.groups, g)
	}
	slices.SortFunc(b.servers, func(a, b string) int { return compareListed(serverOrder, a, b) })
	return true
}

// drawable reports whether a logarithmic axis has a place for it.
func drawable(s bench.Summary) bool { return s.Min > 0 }

// circumstances writes what a case was measured under.
func circumstances(c bench.Case) string {
	s := c.Work
	if c.RTT > 0 {
		s += ", " + roundTrip(c.RTT) + " of added round trip"
	}
	if c.Cold {
		s += ", cold page cache"
	}
	return s
}

// slug makes a file name of words.
func slug(s string) string {
	words := strings.FieldsFunc(strings.ToLower(strings.ReplaceAll(s, "µ", "u")), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "-")
}
