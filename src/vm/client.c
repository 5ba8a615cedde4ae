/*
 * Asking a running VM (see client.h).
 */
#include "vm/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "vm/channel.h"
#include "vm/protocol.h"

enum { CLIENT_HELLO_MS = 10000 };

struct client {
	struct channel *channel;
	json_int_t last_id;
};

static int
client_lost(int error, char *why, size_t why_size)
{
	if (error == -ETIMEDOUT)
		snprintf(why, why_size,
			 "the VM does not answer in time; its host may be overloaded: try again");
	else if (error == -EPIPE || error == -ECONNRESET)
		snprintf(why, why_size,
			 "the VM ended, or closed the connection, before it "
			 "answered; see what its terminal says");
	else
		snprintf(why, why_size, "the control connection failed: %s", strerror(-error));
	return error;
}

static int
client_greet(struct client *client, char *why, size_t why_size)
{
	json_t *message = NULL;
	const char *hello;
	int rc;

	rc = channel_send(
		client->channel,
		json_pack("{s:s, s:i}", "hello", PROTOCOL_NAME, "version", PROTOCOL_VERSION), NULL,
		0);
	if (rc == 0)
		rc = channel_wait(client->channel, &message, CLIENT_HELLO_MS);
	if (rc < 0)
		return client_lost(rc, why, why_size);
	hello = json_string_value(json_object_get(message, "hello"));
	rc = hello && strcmp(hello, PROTOCOL_NAME) == 0 &&
			     json_integer_value(json_object_get(message, "version")) ==
				     PROTOCOL_VERSION
		     ? 0
		     : -EPROTO;
	json_decref(message);
	if (rc)
		snprintf(why, why_size,
			 "the VM speaks another version of the control protocol; use programs of "
			 "one version");
	return rc;
}

int
client_create(struct client **out, int fd, char *why, size_t why_size)
{
	struct client *client = calloc(1, sizeof(*client));
	int rc;

	if (!client) {
		close(fd);
		return client_lost(-ENOMEM, why, why_size);
	}
	rc = channel_create(&client->channel, fd);
	rc = rc ? client_lost(rc, why, why_size) : client_greet(client, why, why_size);
	if (rc) {
		client_destroy(client);
		return rc;
	}
	*out = client;
	return 0;
}

void
client_destroy(struct client *client)
{
	if (!client)
		return;
	channel_destroy(client->channel);
	free(client);
}

/* The answer to request ID; everything else that comes is passed over. */
static int
client_answer(struct client *client, json_int_t id, json_t **reply, int timeout_ms)
{
	i64 end = clock_now_ms() + timeout_ms;
	const json_t *got;
	i64 left;
	int rc;

	for (;;) {
		left = end - clock_now_ms();
		rc = channel_wait(client->channel, reply, left > 0 ? (int)left : 0);
		if (rc < 0)
			return rc;
		got = json_object_get(*reply, "id");
		if (json_is_integer(got) && json_integer_value(got) == id)
			return 0;
		json_decref(*reply);
	}
}

int
client_call(struct client *client, json_t *request, const int *fds, size_t n, json_t **reply,
	    int timeout_ms, char *why, size_t why_size)
{
	json_int_t id = ++client->last_id;
	const char *error;
	int rc;

	if (!request || json_object_set_new(request, "id", json_integer(id))) {
		json_decref(request);
		return client_lost(-ENOMEM, why, why_size);
	}
	rc = channel_send(client->channel, request, fds, n);
	if (rc == 0)
		rc = client_answer(client, id, reply, timeout_ms);
	if (rc < 0)
		return client_lost(rc, why, why_size);
	if (json_is_true(json_object_get(*reply, "ok")))
		return 0;
	error = json_string_value(json_object_get(*reply, "error"));
	snprintf(why, why_size, "%s", error ? error : "the VM refused, and did not say why");
	json_decref(*reply);
	*reply = NULL;
	return -EREMOTEIO;
}
