#!/bin/sh
echo hello "$@" >/root/greeted
