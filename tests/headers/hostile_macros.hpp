// SPDX-License-Identifier: Apache-2.0
//! @file Macros that system headers are known to define; no header of the library may trip over them.
//! Macros that the standard library itself cannot bear (min and max, for instance) are not in the list.
#pragma once

#define I "a macro of <complex.h>"
#define B0 0000000  // <termios.h>
#define small char  // <windows.h>, as are the next four
#define near
#define far
#define interface struct
#define ERROR 0
#define major(device) "a macro of <sys/sysmacros.h>"
#define minor(device) "a macro of <sys/sysmacros.h>"
#define None 0L  // <X11/X.h> and <X11/Xlib.h>, as are the next three
#define Bool int
#define Status int
#define Success 0
