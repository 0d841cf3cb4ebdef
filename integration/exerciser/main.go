// Exerciser does to a directory what programs do to a home, and finds out whether
// the directory did it. It runs in guests, on a mount, one command at a time:
//
//	files   random operations on files, held against a model in memory
//	race    make files by O_EXCL, for which another node races
//	storm   rename, link and replace, of which nothing may get lost
//	list    list a directory over and over while another node empties it
//	unlink  go on with a file that has no name any more
//	map     write and read a file by mmap
//	fill    write until there is no space, or a quota says stop
//	quota   limit what a user may have on a file system
//
// What is wrong it says on standard error, and exits with status 1.
package main

import (
	"flag"
	"fmt"
	"os"
)

var commands = map[string]func(flags *flag.FlagSet, args []string) error{
	"files":  files,
	"file":   file,
	"race":   race,
	"storm":  stormFor,
	"list":   list,
	"unlink": unlink,
	"map":    mapped,
	"fill":   fill,
	"quota":  quota,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: exerciser files|race|storm|list|unlink|map|fill|quota [flags]; -help after the command tells them")
		os.Exit(2)
	}
	name := os.Args[1]
	if err := commands[name](flag.NewFlagSet(name, flag.ExitOnError), os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "exerciser %s: %v\n", name, err)
		os.Exit(1)
	}
}
