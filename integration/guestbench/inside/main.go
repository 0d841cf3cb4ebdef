// Inside is the part of guestbench that runs in the guest: the race of rootnfsd
// and the kernel's NFS server. It prints a report as JSON, and to standard error
// how far it is.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/guest"
)

func main() {
	say := func(s string) { fmt.Fprintln(os.Stderr, s) }
	r := guest.Race{Progress: say, Note: say}
	flag.StringVar(&r.Rootnfsd, "rootnfsd", "", "race the program at `FILE`")
	flag.StringVar(&r.Store, "export", "", "of the store `DIR`")
	flag.StringVar(&r.Version, "version", "v1", "serve the version `NAME`")
	flag.StringVar(&r.Path, "path", "/mnt", "the kernel's server exports the same as `PATH`")
	flag.IntVar(&r.Runs, "runs", 5, "repeat everything `N` times")
	flag.DurationVar(&r.Duration, "duration", time.Second, "`TIME` of each run")
	flag.StringVar(&r.Bench, "bench", "guest", "file the results under `NAME`")
	one := flag.Bool("one", false, "race in the first setting only")
	mountPort := flag.Uint("mount-port", 20048, "and has MOUNT at `PORT`")
	flag.Parse()
	r.MountPort = uint16(*mountPort)
	if *one {
		r.Settings = guest.Settings[:1]
	}
	report, err := r.Run(context.Background())
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		say("inside: " + err.Error())
		os.Exit(1)
	}
}
