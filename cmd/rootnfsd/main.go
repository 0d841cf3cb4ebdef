// Command rootnfsd serves versioned golden root file systems over NFSv3 to
// diskless nodes. See README.md for how it is used and ARCHITECTURE.md for how
// it is built.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "rootnfsd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	app := newApp()
	return app.Run(flagsFirst(app, args))
}
