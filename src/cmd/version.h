/* The release that this is. */
#ifndef CMD_VERSION_H
#define CMD_VERSION_H

#define BIGA_VERSION "0.1"

#endif
