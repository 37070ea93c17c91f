package main

import (
	"errors"
	"flag"
	"net"
	"os"
	"runtime"
	"time"
)

// echoMain: a goroutine and a buffer a connection.
func echoMain(args []string) error {
	addr, args, err := address(args)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("echo", flag.ExitOnError)
	idle := flags.Duration("idle-timeout", 0, "close a connection that has sent nothing for so long")
	heartbeat := flags.Duration("heartbeat", 0, "write `ping` to one that has sent nothing for so long")
	room := flags.Int("buffer", 4096, "bytes of each connection's buffer")
	workers := flags.Int("workers", 0, "GOMAXPROCS; without this one for each CPU it may run on")
	flags.Parse(args)
	runtime.GOMAXPROCS(*workers)
	return serve(addr, func(conn net.Conn) {
		if *heartbeat > 0 {
			echoAndPing(conn, *room, *heartbeat)
		} else {
			echo(conn, *room, *idle)
		}
	})
}

func echo(conn net.Conn, room int, idle time.Duration) {
	defer conn.Close()
	buffer := make([]byte, room)
	for {
		if idle > 0 {
			conn.SetReadDeadline(time.Now().Add(idle))
		}
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func echoAndPing(conn net.Conn, room int, pause time.Duration) {
	defer conn.Close()
	buffer := make([]byte, room)
	for {
		conn.SetReadDeadline(time.Now().Add(pause))
		n, err := conn.Read(buffer)
		answer := buffer[:n]
		if errors.Is(err, os.ErrDeadlineExceeded) {
			answer, err = []byte("ping"), nil
		}
		if err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
