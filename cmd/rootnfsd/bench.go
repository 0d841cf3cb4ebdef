package main

import (
	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench/peer"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "measure this server, other servers and the network",
		Description: `Results are shown as a table, and saved by --json FILE for bench report. No
store may be served while it is measured. Root is needed for nfs-ganesha and for
dropping the page cache only; what cannot be had is left out.

Examples:
   rootnfsd bench race --quick                         rootnfsd, nfs-ganesha and go-nfs side by side
   rootnfsd bench load --target server                 what a server gives over the network
   rootnfsd bench storm --target server --nodes 64     how it stands 64 nodes that boot at once
   rootnfsd bench cold --export images/ --nodes 16     the same with nothing in memory
   rootnfsd bench homes --dir /srv                     writing to homes, beside nfs-ganesha
   rootnfsd bench tftp --clients 64                    boot files, beside dnsmasq and tftpd-hpa
   rootnfsd bench store --dir /srv                     what sealing, size and promotes cost
   rootnfsd bench import --dir /srv root.tar.xz        importing, beside xz alone
   rootnfsd bench report race.json storm.json          tables and plots of what was saved
   rootnfsd bench relay --target server:2049           make a server seem further away`,
		Subcommands: []*cli.Command{
			benchRaceCommand(),
			benchLoadCommand(),
			benchReportCommand(),
			benchStormCommand(),
			benchColdCommand(),
			benchHomesCommand(),
			benchTFTPCommand(),
			benchStoreCommand(),
			benchImportCommand(),
			benchRelayCommand(),
			serveGoNFSCommand(),
			serveLimitCommand(),
			servePinTFTPCommand(),
		},
	}
}

// The peers that are programs of ours run this same binary, each in a process of
// its own, so that its processor time can be told apart.

func serveGoNFSCommand() *cli.Command {
	return peerCommand(peer.GoNFSCommand[1], "serve a directory by go-nfs", peer.ServeGoNFS)
}

func serveLimitCommand() *cli.Command {
	return peerCommand(peer.LimitCommand[1], "send a file as fast as can be", peer.ServeLimit)
}

func servePinTFTPCommand() *cli.Command {
	return peerCommand(peer.PinTFTPCommand[1], "serve a directory over TFTP by pin/tftp", peer.ServePinTFTP)
}

func peerCommand(name, usage string, serve func(addr, path string) error) *cli.Command {
	return &cli.Command{
		Name:      name,
		Usage:     usage,
		ArgsUsage: "ADDR PATH",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usageError(c, "want an address and a path")
			}
			return serve(c.Args().Get(0), c.Args().Get(1))
		},
	}
}
