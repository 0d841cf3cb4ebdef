package report

import (
	"github.com/rootnfsd/rootnfsd/bench"
)

const (
	ours      = "rootnfsd"
	ganesha   = "nfs-ganesha"
	knfsd     = "knfsd"
	theLimit  = "limit"
	copying   = "cp -a"
	boundless = 64 << 20 // bytes of memory, caches apart, whatever the load
)

// A goal is something that rootnfsd is to reach, and how to tell whether it does.
type goal struct {
	what string // is measured
	test test
}

// A test judges measurements.
type test interface {
	want() string // the goal in words
	judge(measured) verdict
}

// goals are all that rootnfsd is to reach. Cases name what must be measured for
// it; where a case leaves something open, the worst that was measured counts.
func goals() []goal {
	return []goal{
		{"CPU of a GETATTR, 4 connections × 16 in flight", cpuPerCall("GETATTR", 4, 16).atMost(1.0 / 12)},
		{"CPU of a LOOKUP, 4 × 16", cpuPerCall("LOOKUP", 4, 16).atMost(1.0 / 12)},
		{"CPU of a READ of 4 KiB, 4 × 16", cpuPerCall("READ 4 KiB", 4, 16).atMost(1.0 / 7)},
		{"CPU of a READ of 128 KiB, 4 × 16", cpuPerCall("READ 128 KiB", 4, 16).atMost(1 / 2.5)},
		{"CPU of a READ of 1 MiB, 4 × 16", cpuPerCall("READ 1 MiB", 4, 16).atMost(1.0 / 3)},
		{"CPU of a GETATTR, 64 × 1", cpuPerCall("GETATTR", 64, 1).atMost(1 / 2.5)},
		{"CPU of a READDIRPLUS walk of the tree", cpuOfAll("READDIRPLUS walk").atMost(1.0 / 5)},
		{"CPU of reading the whole tree", cpuOfAll("whole tree").atMost(1.0 / 4)},

		{"GETATTRs a second, in a guest", rateInGuest("GETATTR").atLeast(2)},
		{"LOOKUPs a second, in a guest", rateInGuest("LOOKUP").atLeast(2)},
		{"READs of 4 KiB a second, in a guest", rateInGuest("READ 4 KiB").atLeast(2)},
		{"READs of 128 KiB a second, in a guest", rateInGuest("READ 128 KiB").atLeast(1)},
		{"READs of 1 MiB a second, in a guest", rateInGuest("READ 1 MiB").atLeast(1)},

		{"time to boot 256 nodes", comparison{
			peer: theLimit, figure: bench.Seconds, unit: duration,
			Case: bench.Case{Bench: "storm", Nodes: 256},
		}.atMost(1.2)},
		{"failed calls while 1024 nodes boot", noErrors{bench.Case{Bench: "storm", Nodes: 1024}}},
		{"p99 of the calls while 1024 nodes boot, against their p50", below{
			Case: bench.Case{Bench: "storm", Nodes: 1024}, figure: tail, unit: times, bound: 4,
		}},
		{"memory while 1024 nodes boot, caches apart", below{
			Case: bench.Case{Bench: "storm", Nodes: 1024}, figure: resident, unit: size, bound: boundless, worst: true,
		}},
		{"memory with 1024 connections, caches apart", below{
			Case: bench.Case{Bench: "race", Work: "GETATTR", Connections: 1024}, figure: resident, unit: size, bound: boundless, worst: true,
		}},

		{"cost of a GETATTR in trees of 10 thousand to 2 million objects", flat{
			Case: bench.Case{Bench: "store", Work: "GETATTR"}, figure: secondsPerCall, unit: duration, most: 1.1,
		}},
		{"cost of a LOOKUP in trees of 10 thousand to 2 million objects", flat{
			Case: bench.Case{Bench: "store", Work: "LOOKUP"}, figure: secondsPerCall, unit: duration, most: 1.1,
		}},
		{"opening a version of 200,000 objects", below{
			Case: bench.Case{Bench: "store", Work: "open", Objects: 200_000}, figure: bench.Seconds, unit: duration, bound: 50e-3,
		}},
		{"from a promote to the first mount that gets it", below{
			Case: bench.Case{Bench: "rollout", Work: "promote"}, figure: bench.Seconds, unit: duration, bound: 100e-3,
		}},
		{"failed calls during 100 promotes under load", noErrors{bench.Case{Bench: "rollout", Work: "calls"}}},
		{"the slowest call during 100 promotes under load", below{
			Case: bench.Case{Bench: "rollout", Work: "calls"}, figure: slowest, unit: duration, bound: 50e-3, worst: true,
		}},

		{"sealing a tree", sealing("seal").atMost(1.3)},
		{"sealing an unchanged tree again, a third of what sealing may take", sealing("seal again").atMost(1.3 / 3)},
		{"memory of sealing 10 thousand to 2 million objects", flat{
			Case: bench.Case{Bench: "store", Work: "seal"}, figure: resident, unit: size, most: 1.1,
		}},

		{"GETATTRs behind a READ that waits for the disk, on one connection", tested{"not delayed", "TestColdReadsHoldUpNobody"}},
		{"reads of the disk when 1000 nodes ask for one cold block", tested{"one", "TestManyNodesReadOneColdBlock"}},
		{"a storm after a promote that warmed, against one that did not", comparison{
			peer: ours, peerWork: "storm after promote --no-warm", figure: bench.Seconds, unit: duration,
			Case: bench.Case{Bench: "cold", Work: "storm after promote", Cold: true},
		}.atMost(1)},

		{"calls and seconds of a boot, with the generated client options and with bare ones", several{bench.Case{Bench: "boot"}}},
	}
}

func cpuPerCall(work string, connections, inFlight int) comparison {
	return comparison{
		peer: ganesha, figure: bench.CPUPerCall, unit: duration,
		Case: bench.Case{Bench: "race", Work: work, Connections: connections, InFlight: inFlight},
	}
}

// cpuOfAll is of work that is the same whatever calls a server does it with.
func cpuOfAll(work string) comparison {
	return comparison{peer: ganesha, figure: cpuSeconds, unit: duration, Case: bench.Case{Bench: "race", Work: work}}
}

func rateInGuest(work string) comparison {
	return comparison{peer: knfsd, figure: bench.CallsPerSecond, unit: perSecond, Case: bench.Case{Bench: "guest", Work: work}}
}

func sealing(work string) comparison {
	return comparison{
		peer: copying, peerWork: "seal", figure: bench.Seconds, unit: duration,
		Case: bench.Case{Bench: "store", Work: work},
	}
}
