// Package fio has the jobs that fio does on a mounted tree, and reads what it says
// of them. The files *.fio can be used by hand, too:
//
//	TREE=/mnt RUNTIME=5 fio --readonly bench/fio/random-4k.fio
//
// They read files of srv/fio in the TREE: one that is large, and many small ones.
package fio

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rootnfsd/rootnfsd/bench"
)

// Files are the job files.
//
//go:embed *.fio
var Files embed.FS

// A Job is one of the job files.
type Job struct {
	File string // in Files
	Work string // as reports call it
}

// Jobs returns all jobs.
func Jobs() []Job {
	return []Job{
		{"sequential-1m.fio", "fio: 1 MiB in sequence"},
		{"sequential-128k.fio", "fio: 128 KiB in sequence, O_DIRECT"},
		{"random-4k.fio", "fio: 4 KiB at random, O_DIRECT, 4 jobs"},
		{"parallel-1m.fio", "fio: 1 MiB in sequence, 4 jobs"},
		{"small-files.fio", "fio: files of 12 KiB"},
	}
}

// output is what there is of interest in fio --output-format=json.
type output struct {
	Jobs []struct {
		Name  string `json:"jobname"`
		Error int    `json:"error"` // errno
		Read  struct {
			Bytes   uint64 `json:"io_bytes"`
			Reads   uint64 `json:"total_ios"`
			Runtime int64  `json:"runtime"` // ms
			Latency struct {
				Max         int64            `json:"max"` // ns
				Percentiles map[string]int64 `json:"percentile"`
			} `json:"clat_ns"`
		} `json:"read"`
	} `json:"jobs"`
}

// Parse reads what fio --output-format=json has printed about one job, or a group
// of them that reports as one. Calls are reads of the application, which a client
// may answer from memory or turn into several READs.
func Parse(b []byte) (bench.Run, error) {
	// Before the JSON there may be remarks.
	start := bytes.IndexByte(b, '{')
	if start < 0 {
		return bench.Run{}, fmt.Errorf("fio failed: %.500s", bytes.TrimSpace(b))
	}
	var o output
	if err := json.NewDecoder(bytes.NewReader(b[start:])).Decode(&o); err != nil {
		return bench.Run{}, fmt.Errorf("output of fio: %w", err)
	}
	if len(o.Jobs) != 1 {
		return bench.Run{}, fmt.Errorf("output of fio: %d jobs, want 1", len(o.Jobs))
	}
	job := &o.Jobs[0]
	if job.Error != 0 {
		return bench.Run{}, fmt.Errorf("fio: job %s failed with errno %d", job.Name, job.Error)
	}
	read := &job.Read
	if read.Reads == 0 || read.Runtime <= 0 {
		return bench.Run{}, errors.New("fio: job " + job.Name + " has read nothing")
	}
	percentile := func(p string) time.Duration { return time.Duration(read.Latency.Percentiles[p]) }
	return bench.Run{
		Wall:  time.Duration(read.Runtime) * time.Millisecond,
		Calls: read.Reads,
		Bytes: read.Bytes,
		P50:   percentile("50.000000"),
		P99:   percentile("99.000000"),
		P999:  percentile("99.900000"),
		Max:   time.Duration(read.Latency.Max),
	}, nil
}
