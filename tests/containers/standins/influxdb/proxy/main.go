// Runs InfluxDB 1.8 behind the address of version 2, and lets in who has the first token of version 2's set-up.
//
// Version 1.8 takes a token of the form user:password alone. So the set-up made a user named "token" with the token as its
// password, and what comes with a bare token goes on as that user's.
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	server := exec.Command("influxd", "run")
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { server.Process.Signal(<-stop) }()

	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: os.Getenv("INFLUXDB_HTTP_BIND_ADDRESS")})
	go func() {
		log.Fatal(http.ListenAndServe(":8086", http.HandlerFunc(func(answer http.ResponseWriter, asked *http.Request) {
			if token, found := strings.CutPrefix(asked.Header.Get("Authorization"), "Token "); found && !strings.Contains(token, ":") {
				asked.Header.Set("Authorization", "Token token:"+token)
			}
			behind.ServeHTTP(answer, asked)
		})))
	}()
	if err := server.Wait(); err != nil {
		log.Fatal(err)
	}
}
