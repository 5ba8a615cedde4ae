/* Included before each guest's main file: its name, from the build. */
const char guest_name[] = GUEST_NAME;
