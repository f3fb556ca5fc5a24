"""Several hosts on one machine: network namespaces with a link each to a switch, which is cut, parted and disturbed."""
