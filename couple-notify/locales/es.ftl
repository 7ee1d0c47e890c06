# Form of address: tú. No second person plural, which differs between Spain and America.

code-subject = Tu código para { $app }
sign-up-intro = Escribe este código para confirmar tu dirección:
sign-in-intro = Tu código para iniciar sesión:
email-intro = Escribe este código para confirmar tu nueva dirección:
or-open-link = O abre este enlace:
confirm-button = Confirmar dirección
sign-in-button = Iniciar sesión
code-and-link-lifetime = El código es válido durante { $code_time }; el enlace, durante { $link_time }.
code-advice = Si no lo has pedido tú, ignora este correo y no pasará nada. No compartas el código con nadie.

already-subject = Ya tienes una cuenta en { $app }
already-text = Alguien, quizá tú, ha intentado registrarse en { $app } con esta dirección, que ya tiene una cuenta.
already-advice = Inicia sesión como siempre. Si has olvidado tu contraseña, pide una nueva desde allí.

password-subject = Nueva contraseña para { $app }
password-intro = Abre este enlace para elegir una nueva contraseña:
password-button = Elegir contraseña
password-advice = Si no lo has pedido tú, ignora este correo: tu contraseña no cambiará.
link-lifetime = El enlace es válido durante { $time }.

email-subject = Confirma tu nueva dirección para { $app }
email-asked-subject = Se ha pedido cambiar tu dirección en { $app }
email-asked-text = Alguien que ha iniciado sesión en tu cuenta ha pedido usar otra dirección. Si has sido tú, no tienes que hacer nada.
email-asked-intro = Si no has sido tú, abre este enlace para conservar esta dirección:
email-asked-button = Conservar esta dirección
email-asked-advice = Después, elige una nueva contraseña y cierra la sesión en tus otros dispositivos.
email-changed-subject = Tu dirección en { $app } ha cambiado
email-changed-text = Tu cuenta tiene ahora otra dirección y esta ya no se usa.
email-changed-advice = Si no has sido tú, responde a este correo de inmediato.
email-confirmed-text = Esta dirección pertenece ahora a tu cuenta en { $app }. A partir de ahora, inicia sesión con ella.

password-changed-subject = Tu contraseña en { $app } ha cambiado
password-changed-text = Se ha establecido una nueva contraseña y se ha cerrado la sesión en todos los demás dispositivos.
password-changed-advice = Si no has sido tú, pide una nueva contraseña de inmediato.

device-subject = Nuevo inicio de sesión en tu cuenta en { $app }
device-text = Un nuevo dispositivo ha iniciado sesión en tu cuenta: { $device }, el { $time }.
device-unnamed-text = Un nuevo dispositivo ha iniciado sesión en tu cuenta el { $time }.
device-advice = Si no has sido tú, elige una nueva contraseña de inmediato: así se cierra la sesión en todos los demás dispositivos.

deletion-subject = Tu cuenta en { $app } se eliminará
deletion-text = Tu cuenta y todo lo que has escrito se eliminarán el { $date }.
deletion-advice = Si cambias de opinión, inicia sesión antes de esa fecha.
deleted-subject = Tu cuenta en { $app } se ha eliminado
deleted-text = Tu cuenta y todo lo que escribiste se han eliminado, como pediste. No recibirás más correos de { $app }.

invitation-subject = Una invitación en { $app }
invitation-text = { $name } quiere conectar contigo en { $app }.
invitation-unnamed-text = Alguien que conoce tu dirección quiere conectar contigo en { $app }. Este correo no dice quién es: verás el nombre al abrir la invitación.
invitation-intro = El código de la invitación:
invitation-button = Abrir la invitación
invitation-expiry = El código y el enlace son válidos hasta el { $time }.
invitation-advice = Si no esperas ninguna invitación, ignora este correo y no pasará nada.
accepted-subject = Han aceptado tu invitación en { $app }
accepted-text = { $name } ha aceptado tu invitación. Ahora compartes { $app } con esta persona.
accepted-advice = Si no conoces a esta persona, pon fin a la conexión en la aplicación.

left-subject = Tu conexión en { $app } ha terminado
left-text = La persona con la que estabas en { $app } ha puesto fin a la conexión.
left-advice = No tienes que hacer nada: tu cuenta se mantiene.

digest-subject = Mensajes sin leer en { $app }
digest-text =
    { $form ->
        [one] Tienes { $count } mensaje sin leer en { $app }.
       *[other] Tienes { $count } mensajes sin leer en { $app }.
    }
digest-from-text =
    { $form ->
        [one] Tienes { $count } mensaje sin leer de { $name } en { $app }.
       *[other] Tienes { $count } mensajes sin leer de { $name } en { $app }.
    }
digest-advice = Abre la aplicación para leer y responder.
digest-reason = Recibes este correo porque pediste correos sobre los mensajes sin leer.
digest-stop = No recibir más estos correos

stop-title = Correos sobre mensajes sin leer
stop-question = ¿Quieres dejar de recibir estos correos?
stop-done = No recibirás más correos sobre mensajes sin leer. Puedes volver a activarlos en la aplicación.
stop-failed = Este enlace no funciona. Desactiva los correos en la aplicación.

news-subject = Novedades de { $app }
news-text = Abre la aplicación.

# Always after "durante".
duration-seconds =
    { $form ->
        [one] { $count } segundo
       *[other] { $count } segundos
    }
duration-minutes =
    { $form ->
        [one] { $count } minuto
       *[other] { $count } minutos
    }
duration-hours =
    { $form ->
        [one] { $count } hora
       *[other] { $count } horas
    }
duration-days =
    { $form ->
        [one] { $count } día
       *[other] { $count } días
    }

date =
    { $day } de { $month ->
        [1] enero
        [2] febrero
        [3] marzo
        [4] abril
        [5] mayo
        [6] junio
        [7] julio
        [8] agosto
        [9] septiembre
        [10] octubre
        [11] noviembre
       *[12] diciembre
    } de { $year }
date-time = { $date }, { $time } UTC
