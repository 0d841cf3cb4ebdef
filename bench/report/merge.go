package report

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// measured are results, no two of the same case, in the order in which they
// are shown.
type measured []bench.Result

// merged is what several reports tell together.
type merged struct {
	results measured
	sources []source            // of what is shown, the newest first
	servers map[string][]string // what each server is: the newest description first
}

// source is a report as far as it is shown.
type source struct {
	date    time.Time
	machine bench.Machine
	results int
}

// merge takes each case from the newest report that has it.
func merge(reports []*bench.Report) merged {
	m := merged{servers: make(map[string][]string)}
	seen := make(map[bench.Case]bool)
	newestFirst := slices.SortedStableFunc(slices.Values(reports), func(a, b *bench.Report) int {
		return b.Date.Compare(a.Date)
	})
	for _, r := range newestFirst {
		s := source{date: r.Date, machine: r.Machine}
		for _, result := range r.Results {
			if seen[result.Case] || len(result.Runs) == 0 {
				continue
			}
			seen[result.Case] = true
			m.results = append(m.results, result)
			s.results++
			m.describe(result.Server, r.Servers[result.Server])
		}
		if s.results > 0 {
			m.sources = append(m.sources, s)
		}
	}
	slices.SortFunc(m.results, func(a, b bench.Result) int { return compare(a.Case, b.Case) })
	return m
}

func (m *merged) describe(server, description string) {
	if description != "" && !slices.Contains(m.servers[server], description) {
		m.servers[server] = append(m.servers[server], description)
	}
}

// The order in which things are shown; what is not listed comes last, by name.
var (
	workOrder = []string{
		"GETATTR", "LOOKUP", "ACCESS", "READ 4 KiB", "READ 64 KiB", "READ 128 KiB", "READ 1 MiB",
		"READDIRPLUS walk", "whole tree",
		"write 1 MiB", "read 1 MiB", "read 4 KiB", "write 4 KiB", "small files", "untar",
	}
	serverOrder = []string{"rootnfsd", "nfs-ganesha", "knfsd", "go-nfs", "limit", "cp -a", "nfs-ganesha, not synced", "decompressor alone", "dnsmasq", "tftpd-hpa", "pin/tftp"}
)

// compare orders cases so that those which differ in the server alone follow
// each other.
func compare(a, b bench.Case) int {
	return cmp.Or(
		strings.Compare(a.Bench, b.Bench),
		compareListed(workOrder, a.Work, b.Work),
		compareBool(a.Cold, b.Cold),
		cmp.Compare(a.RTT, b.RTT),
		cmp.Compare(a.Connections, b.Connections),
		cmp.Compare(a.InFlight, b.InFlight),
		cmp.Compare(a.Nodes, b.Nodes),
		cmp.Compare(a.Objects, b.Objects),
		compareListed(serverOrder, a.Server, b.Server),
	)
}

func compareListed(order []string, a, b string) int {
	place := func(s string) int {
		if i := slices.Index(order, s); i >= 0 {
			return i
		}
		return len(order)
	}
	return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a, b))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// like returns the results whose case is c. Where c is zero any case will do,
// but for Cold and RTT: a warm cache and no delay are what one means unless one
// says otherwise.
func (m measured) like(c bench.Case) measured {
	same := func(want, have int) bool { return want == 0 || want == have }
	named := func(want, have string) bool { return want == "" || want == have }
	return m.where(func(r bench.Result) bool {
		return named(c.Bench, r.Bench) && named(c.Work, r.Work) && named(c.Server, r.Server) &&
			same(c.Connections, r.Connections) && same(c.InFlight, r.InFlight) &&
			same(c.Nodes, r.Nodes) && same(c.Objects, r.Objects) &&
			c.Cold == r.Cold && c.RTT == r.RTT
	})
}

func (m measured) where(keep func(bench.Result) bool) measured {
	var kept measured
	for _, r := range m {
		if keep(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// of returns the result of exactly this case.
func (m measured) of(c bench.Case) (bench.Result, bool) {
	i := slices.IndexFunc(m, func(r bench.Result) bool { return r.Case == c })
	if i < 0 {
		return bench.Result{}, false
	}
	return m[i], true
}

// groups splits the results into those of the same key, which stay in order.
func groups[K comparable](m measured, key func(bench.Case) K) (keys []K, of map[K]measured) {
	of = make(map[K]measured)
	for _, r := range m {
		k := key(r.Case)
		if of[k] == nil {
			keys = append(keys, k)
		}
		of[k] = append(of[k], r)
	}
	return keys, of
}
